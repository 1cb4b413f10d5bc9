// The passes as Python calls them: arrays in, one function of the C interface, arrays out.
#include "bindings/passes.h"

#include <algorithm>
#include <vector>

#include "bindings/errors.h"

namespace attnext::bindings {
namespace {

// A new out: like q, with v's last axis.
attnext_tensor expected_out(const Inputs& inputs, int32_t dtype) {
  int64_t shape[kMaxAxes];
  std::copy_n(inputs.q_array.tensor.shape, inputs.rank(), shape);
  shape[inputs.rank() - 1] = inputs.v.shape[3];
  return make_tensor(shape, inputs.rank(), dtype);
}

void require_no_overlap(const attnext_tensor& out, const Inputs& inputs) {
  const auto refuse_overlap = [&](const Array& input, const char* name) {
    if (input.is_present() && overlaps(out, input.tensor))
      raise(PyExc_ValueError, "out must not share memory with ", name);
  };
  refuse_overlap(inputs.q_array, "q");
  refuse_overlap(inputs.k_array, "k");
  refuse_overlap(inputs.v_array, "v");
  for (const ArrayOption& option : kArrayOptions)
    refuse_overlap(inputs.options.*option.array, option.name);
}

Array import_out(py::handle given, const Inputs& inputs) {
  const attnext_tensor expected = expected_out(inputs, inputs.dtype());
  Array out = import_array(given, "out", Role::kData, &inputs.q_array.place);
  // Only JAX has this method, and its arrays never change.
  if (py::hasattr(given, "block_until_ready"))
    raise(PyExc_TypeError, "out must be an array that can be written to, found ", type_name(given));
  require_same_place(inputs.q_array.place, out.place, "out");
  if (out.is_read_only) raise(PyExc_ValueError, "out must be writable, found a read-only array");
  if (!out.source.is(given))
    raise(PyExc_ValueError, "out must be aligned to its element size and not lazily negated");
  if (out.tensor.ndim != expected.ndim ||
      !std::equal(expected.shape, expected.shape + expected.ndim, out.tensor.shape))
    raise(PyExc_ValueError, "out must have shape ", shape_text(expected), ", found ",
          shape_text(out.tensor));
  require_no_overlap(out.tensor, inputs);
  return out;
}

// What backward writes: the gradients wanted, in the order of AttentionGrads.
struct Gradients {
  static constexpr int kCount = 9;
  attnext_gradients c;
  Output results[kCount];

  Gradients(const Inputs& inputs, int32_t wanted) {
    attnext_gradients_init(&c);
    Output* result = results;
    const auto make = [&](const Array& array) -> const attnext_tensor& {
      const bool is_wanted = (wanted >> (result - results) & 1) != 0;
      if (is_wanted && array.is_present()) *result = inputs.new_like(array);
      return result++->tensor;
    };
    const Layout layout = inputs.options.layout;
    c.dq = optional_canonical(make(inputs.q_array), layout);
    c.dk = optional_canonical(make(inputs.k_array), layout);
    c.dv = optional_canonical(make(inputs.v_array), layout);
    for (const OptionGradient& option : kOptionGradients)
      c.*option.tensor = make(inputs.options.*option.array);
  }

  static attnext_tensor optional_canonical(const attnext_tensor& tensor, Layout layout) {
    return tensor.dtype == ATTNEXT_ABSENT ? tensor : to_canonical(tensor, layout);
  }

  py::tuple finish() const {
    py::tuple finished(kCount);
    for (int i = 0; i < kCount; ++i) finished[i] = results[i].finish();
    return finished;
  }
};

}  // namespace

py::object forward(py::handle q, py::handle k, py::handle v, const py::tuple& options,
                   py::handle return_lse, py::handle out, uint32_t dropout_stream,
                   bool is_unrounded) {
  const bool is_lse_wanted = read_flag(return_lse, "return_lse");
  Inputs inputs(q, k, v, options);
  inputs.options.c.dropout_stream = dropout_stream;
  Array given;
  Output made, lse;
  if (out.is_none())
    made = inputs.new_result(
        expected_out(inputs, is_unrounded ? inputs.accumulator() : inputs.dtype()));
  else
    given = import_out(out, inputs);
  if (is_lse_wanted) lse = inputs.per_head_rows(inputs.q.shape[2]);
  const attnext_tensor c_out =
      to_canonical(given.is_present() ? given.tensor : made.tensor, inputs.options.layout);
  const attnext_tensor c_lse = is_lse_wanted ? with_leading_axes(lse.tensor, 3) : attnext_tensor{};
  run([&] {
    return attnext_forward(&inputs.q, &inputs.k, &inputs.v, &inputs.options.c, &c_out, &c_lse);
  });
  inputs.wait_if_needed();
  py::object result = given.is_present() ? py::reinterpret_borrow<py::object>(out) : made.finish();
  if (!is_lse_wanted) return result;
  return py::make_tuple(std::move(result), lse.finish());
}

py::tuple backward(py::handle dout, py::handle q, py::handle k, py::handle v, py::handle out,
                   py::handle lse, py::handle dlse, const py::tuple& options,
                   uint32_t dropout_stream, int32_t wanted) {
  Inputs inputs(q, k, v, options);
  if (inputs.options.is_paged())
    raise(PyExc_NotImplementedError, "block_table is for the forward pass only");
  inputs.options.c.dropout_stream = dropout_stream;
  const Array dout_array = inputs.like_q(dout, "dout"), out_array = inputs.like_q(out, "out");
  const Array lse_array = inputs.like_lse(lse, "lse");
  const Array dlse_array = dlse.is_none() ? Array() : inputs.like_lse(dlse, "dlse");
  const attnext_tensor c_dout = inputs.canonical(dout_array), c_out = inputs.canonical(out_array);

  check_inputs(inputs);  // before memory is taken for gradients of shapes that do not fit
  Gradients results(inputs, wanted);
  run([&] {
    return attnext_backward(&c_dout, &inputs.q, &inputs.k, &inputs.v, &c_out, &lse_array.tensor,
                            dlse_array.is_present() ? &dlse_array.tensor : nullptr,
                            &inputs.options.c, &results.c);
  });
  inputs.wait_if_needed();
  return results.finish();
}

py::tuple stats(py::handle q, py::handle k, const py::tuple& options) {
  const Inputs inputs(q, k, py::handle(), options);
  const int64_t rows = inputs.q.shape[2];
  if (inputs.has_ragged_keys()) check_inputs(inputs);
  // Packed, the keys of all sequences lie on one axis.
  const int64_t num_keys = inputs.options.is_packed() ? inputs.k.shape[2] : inputs.seqlen_k();
  const Output results[4] = {inputs.per_head_rows(rows), inputs.per_head_rows(rows),
                             inputs.per_head_rows(rows), inputs.per_head_rows(num_keys)};
  attnext_tensor c[4];
  for (int i = 0; i < 4; ++i) c[i] = with_leading_axes(results[i].tensor, 3);
  run([&] {
    return attnext_stats(&inputs.q, &inputs.k, &inputs.options.c, &c[0], &c[1], &c[2], &c[3]);
  });
  inputs.wait_if_needed();
  return py::make_tuple(results[0].finish(), results[1].finish(), results[2].finish(),
                        results[3].finish());
}

py::tuple merge(const py::sequence& outs, const py::sequence& lses, py::handle layout_given,
                py::handle backend) {
  const Layout layout = parse_layout(layout_given);
  if (outs.size() == 0 || outs.size() != lses.size())
    raise(PyExc_ValueError, "outs and lses must be as many, at least one, found ", outs.size(),
          " and ", lses.size());
  std::vector<Array> arrays;
  std::vector<attnext_tensor> c_outs, c_lses;
  arrays.reserve(2 * outs.size());
  for (size_t i = 0; i < outs.size(); ++i) {
    const py::object out = outs[i], lse = lses[i];
    arrays.push_back(i ? import_beside(arrays[0], out, "outs", Role::kData, Kind::kTensor)
                       : import_array(out, "outs", Role::kData));
    require_rank(arrays.back(), "outs", layout);
    require_same_rank(arrays.back(), "outs", arrays[0]);
    c_outs.push_back(to_canonical(arrays.back().tensor, layout));
    arrays.push_back(import_beside(arrays[0], lse, "lses", Role::kData, Kind::kTensor));
    if (arrays.back().tensor.ndim != arrays[0].tensor.ndim - 1)
      raise(PyExc_ValueError, "lses must have one axis less than outs, found shape ",
            shape_text(arrays.back().tensor));
    c_lses.push_back(with_leading_axes(arrays.back().tensor, 3));
  }
  const Place& place = arrays[0].place;
  attnext_options where;
  attnext_options_init(&where);
  where.backend = read_backend(backend);
  where.memory = place.memory;
  where.device = place.device;
  where.stream = place.stream;
  const auto like = [&](const Array& array) {
    const attnext_tensor& t = array.tensor;
    return Output(array, make_tensor(t.shape, t.ndim, t.dtype), arrays[0], where.backend);
  };
  const Output out = like(arrays[0]), lse = like(arrays[1]);
  const attnext_tensor c_out = to_canonical(out.tensor, layout);
  const attnext_tensor c_lse = with_leading_axes(lse.tensor, 3);
  run([&] {
    return attnext_merge_on(&where, c_outs.data(), c_lses.data(),
                            static_cast<int64_t>(c_outs.size()), &c_out, &c_lse);
  });
  wait_if_needed(place, where.backend);
  return py::make_tuple(out.finish(), lse.finish());
}

py::array dropout_mask(const py::sequence& shape, py::handle dropout, py::handle seed,
                       uint32_t stream, py::handle backend) {
  if (shape.size() < 2 || shape.size() > 4)
    raise(PyExc_ValueError, "shape must be (B, H, Sq, Sk), (H, Sq, Sk) or (Sq, Sk), found ",
          shape.size(), " axes");
  std::vector<py::ssize_t> axes;
  for (const py::handle axis : shape) axes.push_back(read_integer(axis, "each axis of shape"));
  int64_t canonical[4] = {1, 1, 1, 1};
  std::copy(axes.rbegin(), axes.rend(), std::reverse_iterator(canonical + 4));
  int64_t count = 1;
  for (const int64_t axis : canonical) {
    if (axis < 0 || __builtin_mul_overflow(count, axis, &count))
      raise(PyExc_ValueError,
            "shape must have axes of at least 0 and a product within 64 bits, found ",
            py::cast<std::string>(py::str(shape)));
  }
  attnext_options options;
  attnext_options_init(&options);
  options.dropout = read_probability(dropout);
  options.seed = read_seed(seed);
  options.dropout_stream = stream;
  options.backend = read_backend(backend);
  py::array_t<bool> keep(axes);
  auto* bytes = reinterpret_cast<uint8_t*>(keep.mutable_data());
  run([&] { return attnext_dropout_mask_on(&options, canonical, bytes); });
  return keep;
}

std::string explain(py::handle q, py::handle k, py::handle v, const py::tuple& options) {
  const Inputs inputs(q, k, v, options);
  std::string text(1024, '\0');
  size_t size = 0;
  const auto fill = [&] {
    return attnext_explain(&inputs.q, &inputs.k, &inputs.v, &inputs.options.c, text.data(),
                           text.size(), &size);
  };
  run(fill);
  if (size > text.size()) {
    text.resize(size);
    run(fill);
  }
  return text.c_str();
}

void check_inputs(const Inputs& inputs) {
  const attnext_tensor& v = inputs.v_array.is_present() ? inputs.v : inputs.k;
  run([&] {
    return attnext_explain(&inputs.q, &inputs.k, &v, &inputs.options.c, nullptr, 0, nullptr);
  });
}

}  // namespace attnext::bindings
