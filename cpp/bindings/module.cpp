// What Python can call: a table of contents.
#include "bindings/errors.h"
#include "bindings/passes.h"

namespace attnext::bindings {
namespace {

py::tuple option_names() {
  py::tuple names(kNumOptions);
  for (int i = 0; i < kNumOptions; ++i) names[i] = kOptionNames[i];
  return names;
}

// (name, whether this machine runs it) of every instruction set in this build, best first.
py::list isas() {
  py::list table;
  for (int i = 0; const char* name = attnext_isa_name(i); ++i)
    table.append(py::make_tuple(name, attnext_isa_supported(i) != 0));
  return table;
}

}  // namespace
}  // namespace attnext::bindings

namespace py = pybind11;

PYBIND11_MODULE(_core, m, py::mod_gil_not_used(),
                py::multiple_interpreters::per_interpreter_gil()) {
  using namespace attnext::bindings;
  m.doc() =
      "attnext's C interface over Python arrays; attnext itself is the documented face of it.";
  m.attr("OPTION_NAMES") = option_names();
  register_result_tensor(m);

  m.def("forward", &forward);
  m.def("backward", &backward);
  m.def("weights", &weights);
  m.def("stats", &stats);
  m.def("merge", &merge);
  m.def("dropout_mask", &dropout_mask);
  m.def("explain", &explain);

  m.def("version", &attnext_version);
  m.def("isa", &attnext_isa);
  m.def("isas", &isas);
  m.def("set_num_threads", &attnext_set_num_threads);
  m.def("get_num_threads", &attnext_get_num_threads);
}
