// The linear layers of the engine where a step has few rows: Hopper's kernel.
#pragma once

#include <moac/sm90/linear.cuh>

namespace moac {
namespace glue {

using sm90::linear;

}  // namespace glue
}  // namespace moac
