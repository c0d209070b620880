"""Small adapters to loggers and viewers: marks for Fiji and ImageJ, a napari plugin, TensorBoard, Weights & Biases.

Each module loads without its package; the call that needs the package says which extra brings it. MLflow's adapter is
`semnr.guarding.mlflow`.
"""
