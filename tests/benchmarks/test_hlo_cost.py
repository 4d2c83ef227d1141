"""The arithmetic of benchmarks/hlo_cost.py: on a program made by hand, and on compiled ones."""

import math
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import hlo_cost
import hlo_text

MODULE = """HloModule jit_made, is_scheduled=true

FileNames
1 "/somewhere/llic_jax/layers/made.py"
2 "/somewhere/site-packages/flax/linen.py"

FunctionNames
1 "Made.__call__"

FileLocations
1 {file_name_id=1 function_name_id=1 line=12 end_line=12 column=4 end_column=9}
2 {file_name_id=2 function_name_id=1 line=99 end_line=99 column=4 end_column=9}

StackFrames
1 {file_location_id=1 parent_frame_id=1}
2 {file_location_id=2 parent_frame_id=1}

%of_a_slice (vector: f32[4096], row: f32[16]) -> f32[16] {
  %vector = f32[4096]{0} parameter(0)
  %row = f32[16]{0} parameter(1)
  %twice = f32[4096]{0} add(%vector, %vector)
  %part = f32[16]{0} slice(%twice), slice={[32:48]}
  ROOT %sum = f32[16]{0} add(%part, %row)
}

%in_place (whole: f32[100,8], update: f32[1,8], at: s32[]) -> f32[100,8] {
  %whole = f32[100,8]{1,0} parameter(0)
  %update = f32[1,8]{1,0} parameter(1)
  %at = s32[] parameter(2)
  %zero = s32[] constant(0)
  ROOT %put = f32[100,8]{1,0} dynamic-update-slice(%whole, %update, %at, %zero)
}

%a_product (left: bf16[8,128,64], right: bf16[64,32]) -> bf16[8,128,32] {
  %left = bf16[8,128,64]{2,1,0} parameter(0)
  %right = bf16[64,32]{1,0} parameter(1)
  ROOT %dot.1 = bf16[8,128,32]{2,1,0} dot(%left, %right), lhs_contracting_dims={2}, rhs_contracting_dims={0}
}

%body (carry: (s32[], f32[16])) -> (s32[], f32[16]) {
  %carry = (s32[], f32[16]{0}) parameter(0)
  %i = s32[] get-tuple-element(%carry), index=0
  %values = f32[16]{0} get-tuple-element(%carry), index=1
  %copied = f32[16]{0} copy(%values)
  ROOT %next = (s32[], f32[16]{0}) tuple(%i, /*index=1*/%copied)
}

%never (carry.1: (s32[], f32[16])) -> pred[] {
  %carry.1 = (s32[], f32[16]{0}) parameter(0)
  ROOT %no = pred[] constant(false)
}

ENTRY %main (v: f32[4096], x: f32[100,8], u: f32[1,8], a: bf16[8,128,64], b: bf16[64,32], d: f32[2,16,8,4]) -> f32[16] {
  %v = f32[4096]{0} parameter(0)
  %x = f32[100,8]{1,0} parameter(1)
  %u = f32[1,8]{1,0} parameter(2)
  %a = bf16[8,128,64]{2,1,0} parameter(3)
  %b = bf16[64,32]{1,0} parameter(4)
  %d = f32[2,16,8,4]{3,2,1,0} parameter(5)
  %k = s32[] constant(0)
  %r = f32[16]{0} constant({...})
  %sliced = f32[16]{0} fusion(%v, %r), kind=kLoop, calls=%of_a_slice, metadata={op_name="jit(step)/transpose(jvp(LLIC))/g_a/block_2_1/stb/gate/expand/add" stack_frame_id=2}
  %placed = f32[100,8]{1,0} fusion(%x, %u, %k), kind=kLoop, calls=%in_place, metadata={op_name="jit(step)/add" source_file="/somewhere/llic_jax/training/step.py" source_line=7}
  %multiplied = bf16[8,128,32]{2,1,0} fusion(%a, %b), kind=kCustom, calls=%a_product, backend_config={"fusion_backend_config":{"kind":"__triton_gemm"}}
  %library = (f32[64,32]{1,0}, u8[12345]{0}) custom-call(%a, %b), custom_call_target="__cublas$lt$matmul", backend_config={"gemm_backend_config":{"dot_dimension_numbers":{"lhs_contracting_dimensions":["2"]}}}
  %w = f32[8,3,3,4]{3,2,1,0} constant({...})
  %dense = (f32[2,16,8,8]{3,2,1,0}, u8[77]{0}) custom-call(%d, %w), window={size=3x3 pad=1_1x1_1}, dim_labels=b01f_o01i->b01f, custom_call_target="__cudnn$convForward"
  %flat = f32[1024]{0} bitcast(%d)
  %taps = f32[200]{0} constant({...})
  %large = f32[1024]{0} custom-call(%flat, %taps), custom_call_target="__gpu$xla.gpu.triton"
  %start = (s32[], f32[16]{0}) tuple(%k, %sliced)
  %loop = (s32[], f32[16]{0}) while(%start), condition=%never, body=%body, backend_config={"known_trip_count":{"n":"5"}}
  ROOT %end = f32[16]{0} get-tuple-element(%loop), index=1
}
"""  # noqa: E501


@pytest.fixture(scope="module")
def made():
    module = hlo_text.parse(MODULE)
    return module, {one.instruction.name: one for one in hlo_cost.kernels(module)}


def test_what_is_launched_and_how_often(made):
    _, found = made
    runs = {name: one.runs for name, one in found.items()}
    single = dict.fromkeys(("sliced", "placed", "multiplied", "library", "dense", "large"), 1)
    assert runs == single | {"copied": 5}
    assert found["multiplied"].kind == "__triton_gemm" and found["sliced"].kind == "loop"


def test_bytes(made):
    _, found = made
    assert found["sliced"].bytes == 4 * (16 + 16 + 16)  # 16 of the vector's 4096
    assert found["placed"].bytes == 4 * (8 + 1 + 8)  # the update read and written, and its place
    assert found["multiplied"].bytes == 2 * (8 * 128 * 64 + 64 * 32 + 8 * 128 * 32)
    assert found["library"].bytes == 2 * (8 * 128 * 64 + 64 * 32) + 4 * 64 * 32  # no work space
    assert found["copied"].bytes == 2 * 4 * 16  # of one run


def test_products(made):
    _, found = made
    assert found["multiplied"].products == 2 * 8 * 128 * 64 * 32
    assert found["multiplied"].product_type == "bf16"
    assert found["library"].products == 2 * 64 * 32 * 64
    assert found["dense"].products == 2 * (2 * 16 * 8 * 8) * 3 * 3 * 4
    assert found["large"].depthwise == 2 * 1024 * 5 * 5  # of two samples, 5 x 5 taps each


GATE = """HloModule jit_gate, is_scheduled=true

ENTRY %main (x: bf16[2,48,32], w: bf16[2048], b: f32[64], p: bf16[1024], q: f32[32], g: f32[64]) -> bf16[3072] {
  %x = bf16[2,48,32]{2,1,0} parameter(0)
  %w = bf16[2048]{0} parameter(1)
  %b = f32[64]{0} parameter(2)
  %p = bf16[1024]{0} parameter(3)
  %q = f32[32]{0} parameter(4)
  %g = f32[64]{0} parameter(5)
  %flat = bf16[3072]{0} bitcast(%x)
  %there = bf16[3072]{0} custom-call(%flat, %w, %b, %p, %q, %g), custom_call_target="__gpu$xla.gpu.triton", metadata={op_name="jit(step)/jvp(LLIC)/g_a/block_0_0/stb/gate/jit(forward)/pallas_call"}
  %back = (bf16[3072]{0}, bf16[6144]{0}, bf16[3072]{0}, f32[128]{0}, f32[64]{0}) custom-call(%flat, %there, %w, %b, %p), custom_call_target="__gpu$xla.gpu.triton", metadata={op_name="jit(step)/transpose(jvp(LLIC))/g_a/block_0_0/stb/gate/jit(backward)/pallas_call"}
  ROOT %end = bf16[3072]{0} get-tuple-element(%back), index=0
}
"""  # noqa: E501


def test_products_of_the_fused_gate():
    """Of 96 positions and 32 channels: forward 3 C^2 each, backward 5 C^2."""
    module = hlo_text.parse(GATE)
    there, back = hlo_cost.kernels(module)
    assert there.products == 2 * 96 * 3 * 32**2 and back.products == 2 * 96 * 5 * 32**2
    assert there.product_type == "bf16" and there.depthwise == back.depthwise == 0
    assert there.bytes == 2 * (2 * 3072 + 2048 + 1024) + 4 * (64 + 32 + 64)
    assert hlo_cost.role(back, module) == "fused kernels (backward)"
    assert hlo_cost.model_part(back, module) == "block/gate"


def test_totals_and_floor(made):
    _, found = made
    rates = hlo_cost.Rates(memory=1e3, products={"f32": 1e6, "bf16": 2e6}, plain=1e6)
    totals = hlo_cost.totals(list(found.values()), rates)
    assert totals.kernels == 11
    moved = sum(one.runs * one.bytes for one in found.values())
    assert math.isclose(totals.gigabytes, moved / 1e9)
    assert math.isclose(totals.ms_bytes, moved)
    launches = totals.ms_floor_with_launches - totals.ms_floor
    assert math.isclose(launches, 1e3 * 11 * hlo_cost.LAUNCH_SECONDS, rel_tol=1e-6)
    bound_by_products = found["sliced"]._replace(runs=2, products=4e6, product_type="bf16")
    assert math.isclose(bound_by_products.seconds(rates), 4.0)
    assert math.isclose(found["copied"].seconds(rates), 5 * 128 / 1e3)


def test_where_kernels_come_from(made):
    module, found = made
    assert hlo_cost.source_line(found["sliced"], module) == "layers/made.py:12 (backward)"
    assert hlo_cost.source_line(found["placed"], module) == "training/step.py:7"
    assert hlo_cost.source_line(found["copied"], module) == "elsewhere"
    assert hlo_cost.model_part(found["sliced"], module) == "block/gate"
    assert hlo_cost.model_part(found["placed"], module) == "the step itself"
    assert hlo_cost.role(found["multiplied"], module) == "products and convolutions"
    shares = hlo_cost.shares(
        list(found.values()), lambda one: hlo_cost.model_part(one, module), hlo_cost.RATES["h200"]
    )
    assert shares["block/gate"].kernels == 1 and next(iter(shares)) == "the step itself"


def test_text_without_a_program_is_refused():
    with pytest.raises(ValueError, match="no ENTRY computation"):
        hlo_text.parse("HloModule nothing")


def cost(function, *arguments):
    module = hlo_text.parse(jax.jit(function).lower(*arguments).compile().as_text())
    return hlo_cost.totals(hlo_cost.kernels(module), hlo_cost.RATES["h200"])


def test_compiled_programs_of_known_bytes():
    """On the CPU that runs the tests: its HLO is written in the same language."""
    x = jnp.ones((256, 1024), jnp.float32)
    element_wise = cost(lambda x: jnp.tanh(x) * 2 + 1, x)
    assert element_wise.kernels == 1 and math.isclose(element_wise.gigabytes, 2 * x.nbytes / 1e9)
    assert element_wise.product_tflop == 0
    product = cost(lambda x, y: x @ y, x, x.T)
    assert math.isclose(product.product_tflop, 2 * 256 * 1024 * 256 / 1e12)
    assert math.isclose(product.gigabytes, (2 * x.nbytes + 4 * 256**2) / 1e9, rel_tol=0.01)
