/* SPDX-License-Identifier: Apache-2.0
 *
 * The library's version, for C and C++. The build reads it from here. It follows semantic versioning; the versions of
 * the file formats are separate and stand in the files themselves.
 */
#ifndef UNWEIGHT_VERSION_H
#define UNWEIGHT_VERSION_H

#define UNWEIGHT_VERSION_MAJOR 0
#define UNWEIGHT_VERSION_MINOR 1
#define UNWEIGHT_VERSION_PATCH 0
#define UNWEIGHT_VERSION_STRING "0.1.0"

#endif
