// How gradients are asked of the kernels, and how per-head parts become those of small options.
#include "attention/head_sums.h"
#include "host/failure.h"
#include "host/passes.h"
#include "host/session.h"

namespace attnext::cuda {
namespace {

// A small option's gradient: where its parts are kept, and how they are added up.
struct HeadPart {
  HeadSums sums;
  double* parts = nullptr;

  HeadPart(Session& session, const Problem& p, const HeadSums& wanted) : sums(wanted) {
    if (!is_present(sums.gradient)) return;
    parts = session.take_zeros(p.batch * p.num_heads_q * sums.columns);
  }

  void finish(Session& session, const Problem& p) const {
    if (!is_present(sums.gradient)) return;
    const HeadSumParams params{
        .parts = parts,
        .batch = p.batch,
        .num_heads = p.num_heads_q,
        .columns = sums.columns,
        .gradient = sums.gradient,
        .extents = {sums.extents[0], sums.extents[1], sums.extents[2]},
        .strides = {sums.strides[0], sums.strides[1], sums.strides[2]},
    };
    require_ok(simt::sum_heads(params, session.launch()));
  }
};

void bring_gradients(Session& session, BackwardParams& params, attnext_gradients& gradients) {
  session.bring_output(params.dq);
  session.bring_output(params.dk);
  session.bring_output(params.dv);
  session.bring_output(params.dbias);
  session.bring_output(gradients.dalibi_slopes);
  session.bring_output(gradients.dsinks);
  session.bring_output(gradients.dscale);
  session.bring_output(gradients.dweight);
  session.bring_output(gradients.dscore_bias);
}

void zero_all(Session& session, const BackwardParams& params, const attnext_gradients& g) {
  for (const TensorView& t : {params.dq, params.dk, params.dv, params.dbias, g.dalibi_slopes,
                              g.dsinks, g.dscale, g.dweight, g.dscore_bias}) {
    session.fill_zero(t);
  }
}

void run_kernels(Session& session, bool allows_tf32, BackwardParams& params,
                 const attnext_gradients& gradients) {
  const Problem& p = params.problem;
  const HeadPart dalibi_slopes(session, p, sums_per_head(p, gradients.dalibi_slopes));
  const HeadPart dsinks(session, p, sums_per_head(p, gradients.dsinks));
  const HeadPart dscale(session, p, sums_per_head(p, gradients.dscale));
  const HeadPart dweight(session, p, sums_per_column(p, gradients.dweight));
  const HeadPart dscore_bias(session, p, sums_per_column(p, gradients.dscore_bias));
  params.dalibi_slopes = dalibi_slopes.parts;
  params.dsinks = dsinks.parts;
  params.dscale = dscale.parts;
  params.dweight = dweight.parts;
  params.dscore_bias = dscore_bias.parts;
  Launch& launch = session.launch();
  const bool fits = mma::why_not_backward(params, allows_tf32, session.device()) == nullptr;
  require_ok(fits ? mma::backward(params, launch) : simt::backward(params, launch));
  for (const HeadPart* part : {&dalibi_slopes, &dsinks, &dscale, &dweight, &dscore_bias}) {
    part->finish(session, p);
  }
}

}  // namespace

void run_backward(const DeviceCall& call, const BackwardParams& given,
                  const attnext_gradients& given_gradients) {
  Session session(call);
  BackwardParams params = given;
  attnext_gradients gradients = given_gradients;
  bring_gradients(session, params, gradients);
  if (is_empty(given.problem)) {
    zero_all(session, params, gradients);
  } else {
    session.bring_problem(params.problem);
    session.bring(params.dout);
    session.bring(params.out);
    session.bring(params.lse);
    session.bring(params.dlse);
    session.send();
    run_kernels(session, call.allows_tf32, params, gradients);
  }
  session.finish();
}

}  // namespace attnext::cuda
