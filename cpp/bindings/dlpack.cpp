// The DLPack protocol: how another library lends us a tensor, and takes one of ours.
#include "bindings/dlpack.h"

#include <algorithm>
#include <cstring>

#include "bindings/errors.h"
#include "bindings/tensors.h"

namespace attnext::bindings {
namespace {

constexpr const char* kLegacyName = "dltensor";
constexpr const char* kVersionedName = "dltensor_versioned";

struct DTypePair {
  attnext_dtype ours;
  DLDataType theirs;
};

constexpr DTypePair kDTypePairs[] = {
    {ATTNEXT_FLOAT64, {kDLFloat, 64, 1}}, {ATTNEXT_FLOAT32, {kDLFloat, 32, 1}},
    {ATTNEXT_FLOAT16, {kDLFloat, 16, 1}}, {ATTNEXT_BFLOAT16, {kDLBfloat, 16, 1}},
    {ATTNEXT_BOOL, {kDLBool, 8, 1}},      {ATTNEXT_INT32, {kDLInt, 32, 1}},
    {ATTNEXT_INT64, {kDLInt, 64, 1}},
};

DLDataType theirs(int32_t dtype) {
  return std::find_if(std::begin(kDTypePairs), std::end(kDTypePairs),
                      [&](const DTypePair& pair) { return pair.ours == dtype; })
      ->theirs;
}

py::object request_capsule(py::handle producer, const py::object& stream) {
  const py::object method = producer.attr("__dlpack__");
  py::dict arguments;  // memory of the host must be asked for without a stream
  if (!stream.is_none()) arguments["stream"] = stream;
  try {
    return method(py::arg("max_version") = py::make_tuple(DLPACK_MAJOR_VERSION, 0), **arguments);
  } catch (py::error_already_set& error) {
    if (!error.matches(PyExc_TypeError)) throw;  // a producer older than max_version says TypeError
  }
  return method(**arguments);
}

// The table that a type has for exchanging tensors in C, without Python's calls; null where it has
// none. One that a subclass inherits knows nothing of what the subclass makes of its memory.
const DLPackExchangeAPI* exchange_table(py::handle value) {
  const py::object members = py::type::of(value).attr("__dict__");
  const auto capsule = py::reinterpret_steal<py::object>(
      PyObject_GetItem(members.ptr(), py::str("__dlpack_c_exchange_api__").ptr()));
  if (!capsule) PyErr_Clear();
  if (!capsule || !PyCapsule_IsValid(capsule.ptr(), "dlpack_exchange_api")) return nullptr;
  const auto* table = static_cast<const DLPackExchangeAPI*>(
      PyCapsule_GetPointer(capsule.ptr(), "dlpack_exchange_api"));
  const DLPackVersion& version = table->header.version;
  const bool is_known = version.major == DLPACK_MAJOR_VERSION && version.minor >= 3;
  return is_known ? table : nullptr;
}

// What an exported tensor keeps alive, and where its axes are written down.
struct Export {
  std::shared_ptr<void> memory;
  int64_t shape[4], strides[4];
};

template <class Managed>
void delete_export(Managed* managed) {
  delete static_cast<Export*>(managed->manager_ctx);
  delete managed;
}

// Runs when nobody took the tensor: a consumer renames the capsule when it does.
template <class Managed>
void drop_capsule(PyObject* capsule, const char* name) {
  if (!PyCapsule_IsValid(capsule, name)) return;
  auto* managed = static_cast<Managed*>(PyCapsule_GetPointer(capsule, name));
  managed->deleter(managed);
}

template <class Managed>
std::unique_ptr<Managed> export_tensor(const attnext_tensor& tensor,
                                       const std::shared_ptr<void>& memory, DLDevice device) {
  auto context = std::make_unique<Export>();
  context->memory = memory;
  std::copy_n(tensor.shape, 4, context->shape);
  std::copy_n(tensor.strides, 4, context->strides);
  auto managed = std::make_unique<Managed>();
  managed->dl_tensor = {memory.get(),     device, tensor.ndim, theirs(tensor.dtype), context->shape,
                        context->strides, 0};
  managed->deleter = delete_export<Managed>;
  managed->manager_ctx = context.release();
  return managed;
}

std::unique_ptr<DLManagedTensorVersioned> export_versioned(const attnext_tensor& tensor,
                                                           const std::shared_ptr<void>& memory,
                                                           DLDevice device) {
  auto managed = export_tensor<DLManagedTensorVersioned>(tensor, memory, device);
  managed->version = {DLPACK_MAJOR_VERSION, 0};
  managed->flags = 0;
  return managed;
}

size_t num_bytes(const attnext_tensor& tensor) {
  return static_cast<size_t>(num_elements(tensor)) * item_size(tensor.dtype);
}

py::capsule make_capsule(void* managed, const char* name, PyCapsule_Destructor drop) {
  PyObject* capsule = PyCapsule_New(managed, name, drop);
  if (!capsule) throw py::error_already_set();
  return py::reinterpret_steal<py::capsule>(capsule);
}

bool is_same(DLDevice a, DLDevice b) {
  return a.device_type == b.device_type && a.device_id == b.device_id;
}

// Whatever the consumer's stream: a result that is handed over this way is complete.
py::capsule dlpack_method(const ResultTensor& self, py::handle, py::handle max_version,
                          py::handle dl_device, py::handle copy) {
  const bool is_versioned =
      !max_version.is_none() && py::cast<int>(max_version[py::int_(0)]) >= DLPACK_MAJOR_VERSION;
  DLDevice target = self.device();
  if (!dl_device.is_none())
    target = {static_cast<DLDeviceType>(py::cast<int>(py::int_(dl_device[py::int_(0)]))),
              py::cast<int>(dl_device[py::int_(1)])};
  const bool is_there = is_same(target, self.device());
  const bool must_copy = !is_there || (!copy.is_none() && py::cast<bool>(copy));
  if (!must_copy) return self.dlpack(is_versioned);
  const bool may_copy = copy.is_none() || py::cast<bool>(copy);
  if (!may_copy || (!is_there && target.device_type != kDLCPU)) {
    PyErr_SetString(PyExc_BufferError,
                    "a result of attnext can be exported where it is, or copied "
                    "there or to host memory");
    throw py::error_already_set();
  }
  try {
    return self.copied_to(target).dlpack(is_versioned);
  } catch (const Refusal& refusal) {
    PyErr_SetString(refusal.exception, refusal.message.c_str());
    throw py::error_already_set();
  }
}

}  // namespace

attnext_dtype dlpack_dtype(const DLDataType& type) {
  for (const DTypePair& pair : kDTypePairs) {
    if (pair.theirs.code == type.code && pair.theirs.bits == type.bits && type.lanes == 1)
      return pair.ours;
  }
  return ATTNEXT_ABSENT;
}

BorrowedTensor::BorrowedTensor(py::handle producer, const py::object& stream) {
  const py::object capsule = request_capsule(producer, stream);
  if (PyCapsule_IsValid(capsule.ptr(), kVersionedName)) {
    versioned_ =
        static_cast<DLManagedTensorVersioned*>(PyCapsule_GetPointer(capsule.ptr(), kVersionedName));
    PyCapsule_SetName(capsule.ptr(), "used_dltensor_versioned");
    if (versioned_->version.major > DLPACK_MAJOR_VERSION) {
      const auto major = versioned_->version.major;
      std::exchange(*this,
                    BorrowedTensor());  // the only field of an unknown version is its deleter
      raise(PyExc_BufferError, type_name(producer), " exports DLPack ", major,
            ", newer than the 1.x understood here");
    }
  } else if (PyCapsule_IsValid(capsule.ptr(), kLegacyName)) {
    legacy_ = static_cast<DLManagedTensor*>(PyCapsule_GetPointer(capsule.ptr(), kLegacyName));
    PyCapsule_SetName(capsule.ptr(), "used_dltensor");
  } else {
    raise(PyExc_TypeError, type_name(producer), ".__dlpack__() returned no DLPack capsule");
  }
}

BorrowedTensor BorrowedTensor::on_host(py::handle producer) {
  BorrowedTensor borrowed;
  const DLPackExchangeAPI* const table = exchange_table(producer);
  if (!table) return borrowed;
  if (table->managed_tensor_from_py_object_no_sync(producer.ptr(), &borrowed.versioned_) != 0) {
    PyErr_Clear();
    borrowed.versioned_ = nullptr;
    return borrowed;
  }
  if ((*borrowed).device.device_type == kDLCPU) return borrowed;
  return BorrowedTensor();
}

BorrowedTensor::~BorrowedTensor() {
  if (versioned_ && versioned_->deleter) versioned_->deleter(versioned_);
  if (legacy_ && legacy_->deleter) legacy_->deleter(legacy_);
}

void* host_memory(size_t bytes) {
  void* memory = nullptr;
  const attnext_status status = attnext_host_allocate(bytes, &memory);
  if (status != ATTNEXT_OK) raise(exception_of(status), last_error_in_python());
  return memory;
}

ResultTensor::ResultTensor(const attnext_tensor& tensor)
    : memory_(host_memory(num_bytes(tensor)), attnext_host_free), tensor_(tensor) {}

ResultTensor::ResultTensor(const attnext_tensor& tensor, int32_t backend, int32_t device)
    : tensor_(tensor), device_{kDLCUDA, device}, backend_(backend) {
  void* memory = nullptr;
  run([&] { return attnext_device_allocate(backend, device, num_bytes(tensor), &memory); });
  memory_ = std::shared_ptr<void>(
      memory, [=](void* taken) { attnext_device_free(backend, device, taken); });
}

ResultTensor ResultTensor::copied_to(DLDevice device) const {
  const bool is_on_host = device.device_type == kDLCPU;
  ResultTensor copy =
      is_on_host ? ResultTensor(tensor_) : ResultTensor(tensor_, backend_, device.device_id);
  if (device_.device_type == kDLCPU) {
    std::memcpy(copy.data(), data(), num_bytes(tensor_));
  } else {
    run([&] {
      return attnext_device_copy(backend_, device_.device_id, nullptr, copy.data(), data(),
                                 num_bytes(tensor_));
    });
  }
  return copy;
}

py::capsule ResultTensor::dlpack(bool is_versioned) const {
  if (!is_versioned) {
    auto managed = export_tensor<DLManagedTensor>(tensor_, memory_, device_);
    return make_capsule(managed.release(), kLegacyName, [](PyObject* capsule) {
      drop_capsule<DLManagedTensor>(capsule, kLegacyName);
    });
  }
  auto managed = export_versioned(tensor_, memory_, device_);
  return make_capsule(managed.release(), kVersionedName, [](PyObject* capsule) {
    drop_capsule<DLManagedTensorVersioned>(capsule, kVersionedName);
  });
}

py::object ResultTensor::taken_by(py::handle like) const {
  const DLPackExchangeAPI* const table = exchange_table(like);
  if (!table || device_.device_type != kDLCPU) return {};
  void* array = nullptr;
  auto managed = export_versioned(tensor_, memory_, device_);
  if (table->managed_tensor_to_py_object_no_sync(managed.release(), &array) != 0)
    throw py::error_already_set();
  return py::reinterpret_steal<py::object>(static_cast<PyObject*>(array));
}

void register_result_tensor(py::module_& m) {
  py::class_<ResultTensor>(m, "ResultTensor", "A result that another library takes by from_dlpack.")
      .def("__dlpack__", &dlpack_method, py::kw_only(), py::arg("stream") = py::none(),
           py::arg("max_version") = py::none(), py::arg("dl_device") = py::none(),
           py::arg("copy") = py::none())
      .def("__dlpack_device__", [](const ResultTensor& self) {
        return py::make_tuple(static_cast<int>(self.device().device_type), self.device().device_id);
      });
}

}  // namespace attnext::bindings
