// How an array argument is unpacked, whosever it is.
#include "bindings/arrays.h"

#include <utility>

#include "bindings/asking.h"
#include "bindings/imports.h"

namespace attnext::bindings {
namespace {

// An AdditiveScore is a tuple as well, and no numbers.
bool is_list(py::handle value) {
  return (py::isinstance<py::list>(value) || py::isinstance<py::tuple>(value)) &&
         !py::hasattr(value, "weight");
}

// Of a class deep in a library: what the library is called.
std::string library_of(py::handle value) {
  const py::tuple bases = py::type::of(value).attr("__mro__");
  const py::handle root = bases[bases.size() > 1 ? bases.size() - 2 : 0];
  const auto module = py::cast<std::string>(py::str(root.attr("__module__")));
  const std::string library = module.substr(0, module.find('.'));
  return library == "jaxlib" ? "jax" : library;
}

}  // namespace

bool is_number(py::handle value) {
  if (PyFloat_Check(value.ptr()) || PyLong_Check(value.ptr())) return true;
  return PyNumber_Check(value.ptr()) && !py::isinstance<py::array>(value) &&
         !py::hasattr(value, "__dlpack__");
}

Array import_array(py::handle value, const char* name, Role role, const Place* beside) {
  if (py::isinstance<py::array>(value))
    return from_numpy(py::reinterpret_borrow<py::array>(value), name, role);
  if (py::hasattr(value, "__dlpack__")) return from_dlpack(value, name, role, beside);
  if (role != Role::kData && (is_list(value) || is_number(value)))
    return from_numpy(array_of_numbers(value, name, role), name, role);
  raise(PyExc_TypeError, name, " must be an array of NumPy or one with __dlpack__, found ",
        type_name(value));
}

Array import_small(py::handle value, const char* name, Role role, const Place* beside) {
  const bool is_foreign = !py::isinstance<py::array>(value) && py::hasattr(value, "__dlpack__");
  const Place place = is_foreign ? place_of(value, name) : Place{};
  if (!place.is_cuda()) return import_array(value, name, role);
  if (beside) require_same_place(*beside, place, name);
  const py::object copy = ask(value, name, [&] { return libraries().attr("to_host")(value); });
  Array array = import_array(copy, name, role);
  array.host_copy = array.is_numpy ? array.source : copy;
  array.source = py::reinterpret_borrow<py::object>(value);
  array.is_numpy = false;
  array.place = place;
  return array;
}

Array import_beside(const Array& q, py::handle value, const char* name, Role role, Kind kind) {
  Array array = kind == Kind::kSmall ? import_small(value, name, role, &q.place)
                                     : import_array(value, name, role, &q.place);
  const bool is_ours = array.is_numpy ? q.is_numpy || kind != Kind::kTensor
                                      : Py_TYPE(value.ptr()) == Py_TYPE(q.source.ptr()) ||
                                            py::isinstance<ResultTensor>(value) ||
                                            library_of(value) == library_of(q.source);
  if (!is_ours)
    raise(PyExc_TypeError, name, " must be of q's library ", library_of(q.source), ", found ",
          library_of(value));
  if (kind != Kind::kSmall)
    require_same_place(q.place, array.place, name, array.is_numpy ? "a NumPy array" : "an array");
  return array;
}

}  // namespace attnext::bindings
