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

// (whether it can run here, a sentence on that) of a back end by its name.
py::tuple backend_status(py::handle name) {
  const int32_t backend = read_backend(name);
  std::string text(1024, '\0');
  size_t size = 0;
  attnext_status status;
  {
    py::gil_scoped_release release;
    status = attnext_backend_status(backend, text.data(), text.size(), &size);
  }
  return py::make_tuple(status == ATTNEXT_OK, std::string(text.c_str()));
}

// `region`: the address of a runtime's GOMP_parallel; 0 for none.
void share_openmp(uintptr_t region) {
  attnext_share_openmp(reinterpret_cast<attnext_openmp_region>(region));
}

void set_float32_precision(int32_t precision) {
  run([&] { return attnext_set_float32_precision(precision); });
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

  m.def("forward", speaking_as("attention", &forward));
  m.def("backward", speaking_as("attention_backward", &backward));
  m.def("weights", speaking_as("attention_weights", &weights));
  m.def("stats", speaking_as("attention_stats", &stats));
  m.def("merge", speaking_as("merge_attention", &merge));
  m.def("dropout_mask", speaking_as("dropout_mask", &dropout_mask));
  m.def("explain", speaking_as("explain", &explain));

  m.def("version", &attnext_version);
  m.def("backend_status", &backend_status);
  m.def("isa", &attnext_isa);
  m.def("isas", &isas);
  m.def("set_num_threads", &attnext_set_num_threads);
  m.def("get_num_threads", &attnext_get_num_threads);
  m.def("share_openmp", &share_openmp);
  m.def("shares_openmp", [] { return attnext_shares_openmp() != 0; });
  m.def("set_float32_precision", speaking_as("set_float32_precision", &set_float32_precision));
  m.def("get_float32_precision", &attnext_get_float32_precision);
}
