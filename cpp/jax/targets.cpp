// The passes as XLA calls them: one FFI target for each.
#include <exception>
#include <new>

#include "jax/vmap.h"

namespace attnext::jax {
namespace {

const attnext_tensor* if_present(const attnext_tensor& tensor) {
  return tensor.dtype == ATTNEXT_ABSENT ? nullptr : &tensor;
}

attnext_status forward(Arguments& a) {
  return attnext_forward(&a.q, &a.k, &a.v, &a.options, &a.out, if_present(a.lse));
}

attnext_status backward(Arguments& a) {
  return attnext_backward(&a.dout, &a.q, &a.k, &a.v, &a.out, &a.lse, if_present(a.dlse), &a.options,
                          &a.gradients);
}

attnext_status weights(Arguments& a) {
  return attnext_weights(&a.q, &a.k, &a.options, &a.rows, &a.p);
}

attnext_status stats(Arguments& a) {
  return attnext_stats(&a.q, &a.k, &a.options, if_present(a.lse), if_present(a.row_max),
                       if_present(a.entropy), if_present(a.key_mass));
}

ffi::ErrorCode code_of(attnext_status status) {
  switch (status) {
    case ATTNEXT_VALUE_ERROR:
    case ATTNEXT_TYPE_ERROR:
      return ffi::ErrorCode::kInvalidArgument;
    case ATTNEXT_NOT_IMPLEMENTED:
      return ffi::ErrorCode::kUnimplemented;
    case ATTNEXT_OUT_OF_MEMORY:
      return ffi::ErrorCode::kResourceExhausted;
    default:
      return ffi::ErrorCode::kInternal;
  }
}

// XLA is built without exceptions: none may reach it.
template <Pass pass>
ffi::Error run(ffi::RemainingArgs inputs, ffi::RemainingRets results, ffi::Dictionary attributes) {
  try {
    Call call;
    if (ffi::Error error = read_call(inputs, results, attributes, call); error.failure())
      return error;
    const attnext_status status = run_examples(call, pass);
    if (status == ATTNEXT_OK) return ffi::Error::Success();
    return ffi::Error(code_of(status), attnext_last_error());
  } catch (const std::bad_alloc&) {
    return ffi::Error(ffi::ErrorCode::kResourceExhausted, "attention: out of memory");
  } catch (const std::exception& error) {
    return ffi::Error::Internal(std::string("attention: ") + error.what());
  }
}

auto binding() { return ffi::Ffi::Bind().RemainingArgs().RemainingRets().Attrs(); }

}  // namespace
}  // namespace attnext::jax

#define ATTNEXT_JAX_TARGET(pass)                                                           \
  extern "C" ATTNEXT_API XLA_FFI_Error* attnext_jax_##pass(XLA_FFI_CallFrame*);            \
  XLA_FFI_DEFINE_HANDLER_SYMBOL(attnext_jax_##pass, attnext::jax::run<attnext::jax::pass>, \
                                attnext::jax::binding())

ATTNEXT_JAX_TARGET(forward);
ATTNEXT_JAX_TARGET(backward);
ATTNEXT_JAX_TARGET(weights);
ATTNEXT_JAX_TARGET(stats);
