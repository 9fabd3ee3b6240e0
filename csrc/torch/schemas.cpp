// SPDX-License-Identifier: BSD-3-Clause
//
// The operators' schemas. They are private: racnn_ops.attention_crop is the public call. Kernels are
// registered by cpu.cpp and cuda.cu, autograd and fakes in Python.
#include <torch/csrc/inductor/aoti_torch/c/shim.h>

#include "registration.h"

static void define_operators(racnn::Library& m) {
  if (const std::string earlier = racnn::earlier_copy(); !earlier.empty()) {
    const std::string message =
        "racnn_ops: " + racnn::own_file() + " is not used: the operators are those of " + earlier;
    aoti_torch_warn(__func__, __FILE__, __LINE__, message.c_str());
    return;
  }
  m.def(
      "_crop_forward(Tensor images, Tensor windows, SymInt out_height, SymInt out_width, str boundary, "
      "float? mask_steepness, float[] scale, float[] shift, ScalarType dtype, float[] boxcar=[], "
      "str interpolation='bilinear', bool antialias=False, float[] offset=[], bool? channels_last=None, "
      "Tensor? image_index=None) "
      "-> Tensor");
  m.def(
      "_crop_window_grad(Tensor grad_output, Tensor images, Tensor windows, str boundary, "
      "float? mask_steepness, float[] scale, float[] shift, str interpolation='bilinear', "
      "bool antialias=False, Tensor? image_index=None) -> Tensor");
  m.def(
      "_crop_image_grad(Tensor grad_output, Tensor windows, SymInt height, SymInt width, str boundary, "
      "float? mask_steepness, float[] scale, bool channels_last, ScalarType dtype, "
      "str interpolation='bilinear', bool antialias=False, Tensor? image_index=None, SymInt images=0) "
      "-> Tensor");
  m.def(
      "_crop_boxcar_grad(Tensor grad_output, Tensor windows, float steepness, str energy, float scale, "
      "float shrink) -> Tensor");
  m.def(
      "_crop_list(Tensor[] images, Tensor windows, Tensor image_index, SymInt out_height, SymInt out_width, "
      "str boundary, float? mask_steepness, float[] scale, float[] shift, ScalarType dtype, float[] boxcar, "
      "str interpolation, bool antialias, float[] offset, bool channels_last) -> Tensor");
  m.def(
      "_crop_list_window_grad(Tensor grad_output, Tensor[] images, Tensor windows, Tensor image_index, "
      "str boundary, float? mask_steepness, float[] scale, float[] shift, str interpolation, bool antialias) "
      "-> Tensor");
  // Of eager calls below autograd: see crop_operators.h.
  m.def(
      "_crop_forward.coded(Tensor images, Tensor windows, SymInt out_height, SymInt out_width, int code, "
      "float mask_steepness) -> Tensor");
  m.def(
      "_crop_window_grad.coded(Tensor grad_output, Tensor images, Tensor windows, int code, "
      "float mask_steepness) -> Tensor");
  m.def(
      "_crop_image_grad.coded(Tensor grad_output, Tensor windows, SymInt height, SymInt width, int code, "
      "float mask_steepness) -> Tensor");
  m.def(
      "_tap_crop(Tensor images, Tensor rows, Tensor row_weights, Tensor columns, Tensor column_weights) "
      "-> Tensor");
  m.def(
      "_tap_image_grad(Tensor grad_output, Tensor rows, Tensor row_weights, Tensor columns, "
      "Tensor column_weights, SymInt height, SymInt width, bool channels_last) -> Tensor");
}

static const racnn::Registration registration(racnn::Kind::FRAGMENT, define_operators, nullptr, __FILE__,
                                              __LINE__);
