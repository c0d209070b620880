// The emulated device for Python: registration before the launches, findings and counters after them.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "machine.hpp"

namespace py = pybind11;

namespace semnr::emulation {

namespace {

using ViewTuple =
    std::tuple<std::string, std::uintptr_t, std::size_t, std::vector<std::int64_t>, std::vector<std::int64_t>, int>;

void begin(const std::vector<ViewTuple>& tensors) {
  std::vector<View> views;
  for (const auto& [name, address, item, shape, strides, mode] : tensors) {
    View view;
    view.name = name;
    view.address = address;
    view.item = item;
    view.shape = shape;
    view.strides = strides;
    view.initialised = (mode & 1) != 0;
    view.writable = (mode & 2) != 0;
    view.whole = (mode & 4) != 0;
    views.push_back(view);
  }
  machine().begin(std::move(views));
}

py::list faults() {
  py::list list;
  for (const Fault& f : machine().faults) {
    py::dict d;
    d["kind"] = f.kind;
    d["message"] = f.message;
    d["kernel"] = f.kernel;
    d["block"] = py::make_tuple(f.block.x, f.block.y, f.block.z);
    d["thread"] = py::make_tuple(f.thread.x, f.thread.y, f.thread.z);
    d["pc"] = f.pc;
    d["other_pc"] = f.other_pc;
    d["site"] = f.site;
    d["where"] = f.where;
    d["address"] = f.address;
    d["count"] = f.count;
    list.append(d);
  }
  return list;
}

py::list unwritten() {
  py::list list;
  for (const auto& u : machine().unwritten()) list.append(py::make_tuple(u.view, u.bytes, u.first));
  return list;
}

py::list launches() {
  py::list list;
  for (const Launched& l : machine().launches) {
    py::dict d;
    d["kernel"] = l.kernel;
    d["function"] = l.function;
    d["grid"] = py::make_tuple(l.grid.x, l.grid.y, l.grid.z);
    d["block"] = py::make_tuple(l.block.x, l.block.y, l.block.z);
    d["shared_bytes"] = l.shared_bytes;
    list.append(d);
  }
  return list;
}

py::dict counters() {
  py::dict all;
  for (const auto& [kernel, c] : machine().counters) {
    py::dict d;
    d["launches"] = c.launches;
    d["blocks"] = c.blocks;
    d["threads"] = c.threads;
    d["barriers"] = c.barriers;
    d["collectives"] = c.collectives;
    d["sectors_read"] = c.sectors_read;
    d["sectors_written"] = c.sectors_written;
    d["bytes_read"] = c.bytes_read;
    d["bytes_written"] = c.bytes_written;
    d["shared_bytes"] = c.shared_bytes;
    for (const auto& [name, t] : {std::pair{"shared_load", c.banks.loads}, std::pair{"shared_store", c.banks.stores}}) {
      const std::string prefix = name;
      d[py::str(prefix + "_words")] = t.words;
      d[py::str(prefix + "_instructions")] = t.instructions;
      d[py::str(prefix + "_transactions")] = t.transactions;
      d[py::str(prefix + "_ideal")] = t.ideal;
    }
    d["worst_ways"] = c.banks.worst_ways_x100 / 100.0;
    d["worst_pc"] = c.banks.worst_pc;
    all[py::str(kernel)] = d;
  }
  return all;
}

}  // namespace

}  // namespace semnr::emulation

void bind_emulation(py::module_& m) {
  using namespace semnr::emulation;
  py::register_exception<Stop>(m, "Stop", PyExc_RuntimeError);
  m.def("begin", &begin,
        "Register tensors: (name, address, item size, shape, strides, 1 initialised | 2 writable | 4 whole).");
  m.def("faults", &faults, "What was found since `begin`.");
  m.def("unwritten", &unwritten, "(index of a tensor, bytes that nothing wrote, address of the first).");
  m.def("counters", &counters, "Kernel name -> counts since `begin`.");
  m.def("mutate", [](int which) { machine().mutation = which; }, "Switch a seeded fault on; 0: none.");
  m.def("launches", &launches,
        "Every launch since `begin`: kernel, address of its function, grid, block, shared bytes.");
  m.def(
      "checking", [](bool on) { machine().checking = on; },
      "False: bounds and counters alone, without races and contents, for counting large grids.");
  m.def(
      "only_blocks", [](std::vector<std::uint64_t> blocks) { machine().only = std::move(blocks); },
      "Run these blocks of every launch, by linear index; none: all.");
}
