// How a vmapped call runs: as one batch where that means the same, example by example elsewhere.
#pragma once

#include "jax/arguments.h"

namespace attnext::jax {

using Pass = attnext_status (*)(Arguments&);

// Runs `pass` for every example; stops at the first that fails.
attnext_status run_examples(Call& call, Pass pass);

}  // namespace attnext::jax
