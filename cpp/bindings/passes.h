// The passes as Python calls them: arrays in, one function of the C interface, arrays out.
#pragma once

#include "bindings/inputs.h"

namespace attnext::bindings {

// A new out has q's dtype or, `is_unrounded`, that of lse.
py::object forward(py::handle q, py::handle k, py::handle v, const py::tuple& options,
                   py::handle return_lse, py::handle out, uint32_t dropout_stream,
                   bool is_unrounded);

// Bit i of `wanted` asks for field i of AttentionGrads; what it belongs to has to be there too.
py::tuple backward(py::handle dout, py::handle q, py::handle k, py::handle v, py::handle out,
                   py::handle lse, py::handle dlse, const py::tuple& options,
                   uint32_t dropout_stream, int32_t wanted);

py::object weights(py::handle q, py::handle k, const py::tuple& options, py::handle rows);

py::tuple stats(py::handle q, py::handle k, const py::tuple& options);

py::tuple merge(const py::sequence& outs, const py::sequence& lses, py::handle layout,
                py::handle backend);

py::array dropout_mask(const py::sequence& shape, py::handle dropout, py::handle seed,
                       uint32_t stream, py::handle backend);

// The JSON text of attnext_explain.
std::string explain(py::handle q, py::handle k, py::handle v, const py::tuple& options);

// Has the library check q, k, v and the options, so that lengths may be read here and results made.
void check_inputs(const Inputs& inputs);

}  // namespace attnext::bindings
