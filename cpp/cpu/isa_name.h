// What an object of kernels is called: -DATTNEXT_ISA=avx2 puts all of it into namespace isa_avx2.
#pragma once

#define ATTNEXT_CONCATENATE_(a, b) a##b
#define ATTNEXT_CONCATENATE(a, b) ATTNEXT_CONCATENATE_(a, b)
#define ATTNEXT_ISA_NAMESPACE ATTNEXT_CONCATENATE(isa_, ATTNEXT_ISA)
#define ATTNEXT_TEXT_(a) #a
#define ATTNEXT_TEXT(a) ATTNEXT_TEXT_(a)
