import sys, time
exec(open("/work/v/fast/dev/try_transfer.py").read().split('if __name__ == "__main__"')[0])
exec(open("/work/v/fast/dev/try_transfer.py").read().split('if __name__ == "__main__"')[0].split("\n",2)[2]) if False else None
rng = np.random.default_rng(0)
x, d, r = (torch.from_numpy((60 * rng.random((512, 512))).astype(np.float32))[None, None] for _ in range(3))
r = x + r
x = x + d
new, f = native_transfer(x, d, r, None, False, False)
t = []
for _ in range(200):
    s = time.thread_time(); f(); t.append(time.thread_time() - s)
print(new, "  ms", 1e3 * min(t), 1e3 * sorted(t)[100])
