// SPDX-License-Identifier: Apache-2.0
#ifndef TERSE_EXPORT_H
#define TERSE_EXPORT_H

// What the shared library exports; all else is hidden. For C and C++.
#define TERSE_API __attribute__((visibility("default")))

#endif
