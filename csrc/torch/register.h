// SPDX-License-Identifier: BSD-3-Clause
//
// All operators of schemas.cpp, registered for one backend.
#pragma once

#include "crop_operators.h"
#include "list_operators.h"
#include "registration.h"
#include "tap_operators.h"

namespace racnn {

template <typename Backend>
void register_operators(Library& library) {
  if (!earlier_copy().empty()) return;
  library.impl("_crop_forward", TORCH_BOX(&crop_forward<Backend>));
  library.impl("_crop_forward.coded", TORCH_BOX(&crop_forward_coded<Backend>));
  library.impl("_crop_window_grad", TORCH_BOX(&crop_window_grad<Backend>));
  library.impl("_crop_window_grad.coded", TORCH_BOX(&crop_window_grad_coded<Backend>));
  library.impl("_crop_image_grad", TORCH_BOX(&crop_image_grad<Backend>));
  library.impl("_crop_image_grad.coded", TORCH_BOX(&crop_image_grad_coded<Backend>));
  library.impl("_crop_boxcar_grad", TORCH_BOX(&crop_boxcar_grad<Backend>));
  library.impl("_crop_list", TORCH_BOX(&crop_list<Backend>));
  library.impl("_crop_list_window_grad", TORCH_BOX(&crop_list_window_grad<Backend>));
  library.impl("_tap_crop", TORCH_BOX(&tap_crop<Backend>));
  library.impl("_tap_image_grad", TORCH_BOX(&tap_image_grad<Backend>));
}

}  // namespace racnn
