// SPDX-License-Identifier: Apache-2.0
//
// In the place of CUDA's driver: memory of the host that it says to be a device's.
#include <stddef.h>
#include <stdint.h>

static uintptr_t device_begin = 0;
static size_t device_bytes = 0;

void fake_cuda_claim(const void* memory, size_t bytes) {
  device_begin = (uintptr_t)memory;
  device_bytes = bytes;
}

// CU_POINTER_ATTRIBUTE_MEMORY_TYPE and CU_POINTER_ATTRIBUTE_IS_MANAGED
int cuPointerGetAttributes(unsigned count, int* attributes, void** data, unsigned long long pointer) {
  const int known = pointer - device_begin < device_bytes;
  for (unsigned i = 0; i < count; ++i) *(unsigned*)data[i] = known && attributes[i] == 2 ? 2u : 0u;
  return 0;
}
