// What the options of a Python call mean to the C interface.
#include "bindings/options.h"

#include <cmath>
#include <iterator>

#include "bindings/errors.h"

namespace attnext::bindings {

const ArrayOption kArrayOptions[13] = {
    {"scale", &Options::scale_per_head, &attnext_options::scale_per_head},
    {"q_offset", &Options::q_offset, &attnext_options::q_offset},
    {"mask", &Options::mask, &attnext_options::mask},
    {"bias", &Options::bias, &attnext_options::bias},
    {"alibi_slopes", &Options::alibi_slopes, &attnext_options::alibi_slopes},
    {"sinks", &Options::sinks, &attnext_options::sinks},
    {"AdditiveScore.weight", &Options::weight, &attnext_options::weight},
    {"AdditiveScore.bias", &Options::score_bias, &attnext_options::score_bias},
    {"q_lengths", &Options::q_lengths, &attnext_options::q_lengths},
    {"kv_lengths", &Options::kv_lengths, &attnext_options::kv_lengths},
    {"cu_seqlens_q", &Options::cu_seqlens_q, &attnext_options::cu_seqlens_q},
    {"cu_seqlens_k", &Options::cu_seqlens_k, &attnext_options::cu_seqlens_k},
    {"block_table", &Options::block_table, &attnext_options::block_table},
};

const OptionGradient kOptionGradients[6] = {
    {&Options::bias, &attnext_gradients::dbias},
    {&Options::alibi_slopes, &attnext_gradients::dalibi_slopes},
    {&Options::sinks, &attnext_gradients::dsinks},
    {&Options::scale_per_head, &attnext_gradients::dscale},
    {&Options::weight, &attnext_gradients::dweight},
    {&Options::score_bias, &attnext_gradients::dscore_bias},
};

namespace {

// Options that are arrays or None, and nothing else.
struct PlainArrayOption {
  Option option;
  Role role;
  Array Options::* array;
};
constexpr PlainArrayOption kPlainArrayOptions[] = {
    {Option::kMask, Role::kBool, &Options::mask},
    {Option::kBias, Role::kFloat, &Options::bias},
    {Option::kAlibiSlopes, Role::kFloat, &Options::alibi_slopes},
    {Option::kSinks, Role::kFloat, &Options::sinks},
    {Option::kQLengths, Role::kInteger, &Options::q_lengths},
    {Option::kKvLengths, Role::kInteger, &Options::kv_lengths},
    {Option::kCuSeqlensQ, Role::kInteger, &Options::cu_seqlens_q},
    {Option::kCuSeqlensK, Role::kInteger, &Options::cu_seqlens_k},
    {Option::kBlockTable, Role::kInteger, &Options::block_table},
};

struct NamedScore {
  const char* name;
  attnext_score score;
};
constexpr NamedScore kScores[] = {
    {"dot", ATTNEXT_DOT},
    {"cosine", ATTNEXT_COSINE},
    {"neg_l2", ATTNEXT_NEG_L2},
    {"neg_sq_l2", ATTNEXT_NEG_SQ_L2},
};

bool equals(py::handle value, const char* text) {
  return PyUnicode_Check(value.ptr()) && PyUnicode_CompareWithASCIIString(value.ptr(), text) == 0;
}

std::string text_of(py::handle value) { return py::cast<std::string>(py::repr(value)); }

// Python's bool or NumPy's.
bool is_flag(py::handle value) {
  return py::detail::make_caster<bool>().load(value, /*convert=*/false);
}

double read_number(py::handle value, const char* name) {
  const double number = PyFloat_AsDouble(value.ptr());
  if (number == -1 && PyErr_Occurred()) {
    PyErr_Clear();
    raise(PyExc_TypeError, name, " must be a number, found ", type_name(value));
  }
  if (std::isnan(number)) raise(PyExc_ValueError, name, " must be a number, found nan");
  return number;
}

// The items of a sequence whose length is 2, which its own code may refuse to hand over.
py::tuple read_pair(py::handle value, const char* name) {
  std::string reason;
  try {
    const auto pair = py::reinterpret_borrow<py::sequence>(value);
    return py::make_tuple(py::object(pair[0]), py::object(pair[1]));
  } catch (py::error_already_set& error) {
    if (!error.matches(PyExc_Exception)) throw;
    reason = py::cast<std::string>(py::str(error.value()));
  }
  raise(PyExc_TypeError, name, " must be a pair, found ", type_name(value),
        " that cannot be read: ", reason);
}

int64_t read_reach(py::handle value) {
  return value.is_none() ? -1 : read_integer(value, "each side of window");
}

}  // namespace

// Python has seen to it that it is a name, or None: where q lies.
attnext_backend read_backend(py::handle value) {
  if (equals(value, "cpu")) return ATTNEXT_CPU;
  if (equals(value, "cuda")) return ATTNEXT_CUDA;
  return equals(value, "cuda-emulated") ? ATTNEXT_CUDA_EMULATED : ATTNEXT_AUTO;
}

bool read_flag(py::handle value, const char* name) {
  if (!is_flag(value))
    raise(PyExc_TypeError, name, " must be True or False, found ", type_name(value));
  return py::cast<bool>(value);
}

int64_t read_integer(py::handle value, const char* name) {
  const auto index = py::reinterpret_steal<py::object>(PyNumber_Index(value.ptr()));
  if (!index) {
    PyErr_Clear();
    raise(PyExc_TypeError, name, " must be an integer, found ", type_name(value));
  }
  int overflow = 0;
  const int64_t number = PyLong_AsLongLongAndOverflow(index.ptr(), &overflow);
  if (overflow) raise(PyExc_ValueError, name, " must fit 64 bits, found ", text_of(value));
  return number;
}

double read_probability(py::handle value) { return read_number(value, "dropout"); }

uint64_t read_seed(py::handle value) {
  const auto index = py::reinterpret_steal<py::object>(PyNumber_Index(value.ptr()));
  if (!index) {
    PyErr_Clear();
    raise(PyExc_TypeError, "seed must be an integer, found ", type_name(value));
  }
  const uint64_t seed = PyLong_AsUnsignedLongLong(index.ptr());
  if (PyErr_Occurred()) {
    PyErr_Clear();
    raise(PyExc_ValueError, "seed must be in [0, 2**64), found ", text_of(value));
  }
  return seed;
}

Options::Options(const py::tuple& values, const Array& q) {
  const auto value = [&](Option option) {
    return py::handle(PyTuple_GET_ITEM(values.ptr(), static_cast<int>(option)));
  };
  if (values.size() != kNumOptions) raise(PyExc_TypeError, "expected ", kNumOptions, " options");
  attnext_options_init(&c);
  c.backend = read_backend(value(Option::kBackend));
  c.memory = q.place.memory;
  c.device = q.place.device;
  c.stream = q.place.stream;
  if (c.backend == ATTNEXT_CPU && q.place.is_cuda())
    raise(PyExc_TypeError, "backend 'cpu' computes in host memory, found q on ",
          place_text(q.place));
  layout = parse_layout(value(Option::kLayout));
  read_score(value(Option::kScore), q);
  read_scale(value(Option::kScale), q);
  read_causal(value(Option::kCausal));
  read_q_offset(value(Option::kQOffset), q);
  read_window(value(Option::kWindow));
  read_dropout(value(Option::kDropout), value(Option::kSeed));
  if (!value(Option::kSoftcap).is_none())
    c.softcap = read_number(value(Option::kSoftcap), "softcap");
  for (const PlainArrayOption& plain : kPlainArrayOptions) {
    const py::handle given = value(plain.option);
    if (given.is_none()) continue;
    const char* name = kOptionNames[static_cast<int>(plain.option)];
    const bool is_pairs = plain.option == Option::kMask || plain.option == Option::kBias;
    this->*plain.array =
        import_beside(q, given, name, plain.role, is_pairs ? Kind::kPairs : Kind::kSmall);
  }
  for (const ArrayOption& option : kArrayOptions) {
    if ((this->*option.array).is_present()) c.*option.tensor = (this->*option.array).tensor;
  }
  require_layout_fits();
}

void Options::read_score(py::handle value, const Array& q) {
  for (const NamedScore& named : kScores) {
    if (!equals(value, named.name)) continue;
    c.score = named.score;
    return;
  }
  if (PyUnicode_Check(value.ptr()) || !py::hasattr(value, "weight"))
    raise(PyUnicode_Check(value.ptr()) ? PyExc_ValueError : PyExc_TypeError,
          "score must be 'dot', 'cosine', 'neg_l2', 'neg_sq_l2' or an AdditiveScore, found ",
          text_of(value));
  c.score = ATTNEXT_ADDITIVE;
  weight =
      import_beside(q, value.attr("weight"), "AdditiveScore.weight", Role::kFloat, Kind::kSmall);
  const py::object bias_of_score = py::getattr(value, "bias", py::none());
  if (!bias_of_score.is_none())
    score_bias = import_beside(q, bias_of_score, "AdditiveScore.bias", Role::kFloat, Kind::kSmall);
}

// A 0-d array is a number: only per-head scales have a gradient.
void Options::read_scale(py::handle value, const Array& q) {
  if (value.is_none()) return;
  if (is_number(value)) {
    c.scale = read_number(value, "scale");
    return;
  }
  Array array = import_beside(q, value, "scale", Role::kFloat, Kind::kSmall);
  if (array.tensor.ndim == 0)
    c.scale = read_number(value, "scale");
  else
    scale_per_head = std::move(array);
}

void Options::read_causal(py::handle value) {
  if (is_flag(value))
    c.causal = read_flag(value, "causal") ? ATTNEXT_BOTTOM_RIGHT : ATTNEXT_NOT_CAUSAL;
  else if (equals(value, "bottom_right"))
    c.causal = ATTNEXT_BOTTOM_RIGHT;
  else if (equals(value, "top_left"))
    c.causal = ATTNEXT_TOP_LEFT;
  else
    raise(PyExc_ValueError, "causal must be False, True, 'bottom_right' or 'top_left', found ",
          text_of(value));
}

void Options::read_q_offset(py::handle value, const Array& q) {
  if (value.is_none()) return;
  if (!is_number(value)) {
    q_offset = import_beside(q, value, "q_offset", Role::kInteger, Kind::kSmall);
    return;
  }
  q_offset_value_ = read_integer(value, "q_offset");
  c.q_offset = make_tensor(nullptr, 0, ATTNEXT_INT64);
  c.q_offset.data = &q_offset_value_;
}

void Options::read_window(py::handle value) {
  if (value.is_none()) return;
  if (!PySequence_Check(value.ptr()) || PyUnicode_Check(value.ptr()) ||
      PySequence_Size(value.ptr()) != 2) {
    PyErr_Clear();
    raise(PyExc_ValueError, "window must be a pair (left, right), found ", text_of(value));
  }
  const py::tuple sides = read_pair(value, "window");
  c.window_left = read_reach(sides[0]);
  c.window_right = read_reach(sides[1]);
}

void Options::read_dropout(py::handle dropout, py::handle seed) {
  c.dropout = read_probability(dropout);
  if (!seed.is_none()) c.seed = read_seed(seed);
  if (c.dropout > 0 && seed.is_none())
    raise(PyExc_ValueError, "seed is required when dropout > 0, found None");
}

void Options::require_layout_fits() const {
  const bool has_q = cu_seqlens_q.is_present(), has_k = cu_seqlens_k.is_present();
  if (is_packed() && !(has_q && has_k))
    raise(PyExc_ValueError, "cu_seqlens_q and cu_seqlens_k must be given with layout thd, found ",
          has_q   ? "only cu_seqlens_q"
          : has_k ? "only cu_seqlens_k"
                  : "neither");
  if (!is_packed() && (has_q || has_k))
    raise(PyExc_ValueError,
          "cu_seqlens_q and cu_seqlens_k must be given only with layout thd, found ",
          layout == Layout::kBshd ? "bshd" : "bhsd");
  if (is_packed() && is_paged())
    raise(PyExc_ValueError, "block_table needs layout bhsd or bshd for q, found thd");
}

}  // namespace attnext::bindings
