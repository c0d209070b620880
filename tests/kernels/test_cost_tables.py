"""What the cost tables rest on: occupancy and loops against figures worked out by hand, the records against bars."""

from __future__ import annotations

import aot_table
import chips
import counted_table
import disassembly
import pytest


@pytest.mark.parametrize(
    ("target", "threads", "registers", "shared", "share", "blocks", "limit"),
    [
        # 32 lanes x 64 registers is 2048 of 65536: 32 warps, 8 blocks of 4
        ("sm_90", 128, 64, 0, 0.5, 8, "registers"),
        # 33 registers are taken as 40: 12 warps a scheduler, 48 in all
        ("sm_80", 128, 33, 0, 0.75, 12, "registers"),
        # 227 KB, the most a block may take, and the system's 1 KB: one block
        ("sm_90", 256, 32, 227 * 1024, 8 / 64, 1, "shared memory"),
        ("sm_80", 256, 32, 227 * 1024, 0.0, 0, "shared memory"),
        # 40 KB and 1 KB: 164 / 41 = 4 blocks of 8 warps on sm_80, 228 / 41 = 5 on sm_90
        ("sm_80", 256, 32, 40 * 1024, 0.5, 4, "shared memory"),
        ("sm_90", 256, 32, 40 * 1024, 0.625, 5, "shared memory"),
        ("sm_100", 1024, 32, 0, 1.0, 2, "threads"),
        ("sm_80", 32, 16, 0, 0.5, 32, "blocks"),
        ("sm_90", 1024, 65, 0, 0.0, 0, "registers"),
        # 512 registers a lane in each of 4 SIMDs: 128 leave 4 waves each, 16 in all, 4 blocks of 4
        ("gfx942", 256, 128, 0, 0.5, 4, "registers"),
        ("gfx942", 256, 64, 20 * 1024, 0.375, 3, "shared memory"),
    ],
)
def test_occupancy_is_what_the_chips_limits_leave(
    target: str, threads: int, registers: int, shared: int, share: float, blocks: int, limit: str
) -> None:
    found = chips.occupancy(target, threads, registers, shared)
    assert (found.share, found.blocks, found.limit) == (share, blocks, limit)


SASS = """
	.section	.text.kernel,"ax",@progbits
.text.kernel:
        /*0000*/                   LDC R1, c[0x0][0x28] ;
.L_x_0:
        /*0010*/                   IADD3 R0, R0, 0x1, RZ ;
.L_x_1:
        /*0020*/                   LDG.E.128.CONSTANT R4, desc[UR4][R2.64] ;
        /*0030*/                   LDG.E.U8 R8, desc[UR4][R2.64+0x10] ;
        /*0040*/                   FFMA R4, R4, R5, R6 ;
        /*0050*/                   DADD R6, R6, R4 ;
        /*0060*/                   NOP ;
        /*0070*/               @P0 BRA `(.L_x_1) ;
        /*0080*/                   STS [R0], R4 ;
        /*0090*/                   BAR.SYNC.DEFER_BLOCKING 0x0 ;
        /*00a0*/              @!P1 BRA `(.L_x_0) ;
        /*00b0*/                   EXIT ;
.L_x_2:
        /*00c0*/                   BRA `(.L_x_2);
	.section	.text.straight,"ax",@progbits
.text.straight:
        /*0000*/                   FADD R1, R1, R2 ;
        /*0010*/                   EXIT ;
.L_x_3:
        /*0020*/                   BRA `(.L_x_3);
"""


def test_the_hot_loop_is_the_one_that_moves_the_most_bytes() -> None:
    found = disassembly.sass(SASS)
    hot = found["kernel"]
    assert hot.loop
    assert hot.instructions == 5  # without the padding
    assert hot.kinds == {"branch": 1, "device": 2, "float32": 1, "float64": 1}
    assert hot.loaded == 17


def test_a_kernel_without_a_loop_is_counted_whole() -> None:
    straight = disassembly.sass(SASS)["straight"]
    assert not straight.loop
    assert straight.instructions == 3


AMD = """
kernel:
	s_load_dwordx4 s[0:3], s[0:1], 0x0
	s_cbranch_execz .LBB0_3
	s_endpgm
.LBB0_2:
	global_load_dwordx4 v[0:3], v4, s[0:1]
	global_load_ubyte v5, v4, s[0:1]
	v_pk_fma_f32 v[0:1], v[2:3], v[0:1], v[0:1]
	ds_bpermute_b32 v6, v7, v8
	s_cbranch_vccnz .LBB0_2
.LBB0_3:
	s_endpgm
.Lfunc_end0:
	.section	.rodata
	s_not_code
"""


def test_amd_assembly_is_read_to_the_functions_end() -> None:
    hot = disassembly.amdgcn(AMD)
    assert hot.instructions == 5
    assert hot.loaded == 17
    assert hot.kinds == {"branch": 1, "device": 2, "float32": 1, "shuffle": 1}


def test_a_spill_is_a_problem_with_any_compiler_and_a_changed_figure_only_with_the_recorded_one() -> None:
    row = {"kernel": "k", "target": "sm_90", "registers": 32, "spills": 0}
    recorded = {"versions": {"triton": "1", "nvcc": "13"}, "kernels": [row]}
    assert aot_table.problems(recorded, recorded) == []
    grown = {"versions": recorded["versions"], "kernels": [{**row, "registers": 40}]}
    assert len(aot_table.problems(grown, recorded)) == 1
    assert aot_table.problems({**grown, "versions": {"triton": "2", "nvcc": "13"}}, recorded) == []
    spilled = {"versions": {"triton": "2", "nvcc": "13"}, "kernels": [{**row, "spills": 8}]}
    assert aot_table.problems(spilled, recorded) == ["k on sm_90 spills 8"]


def test_a_table_without_nvcc_does_not_miss_the_recorded_cuda_kernels() -> None:
    rows = [{"kernel": name, "target": "sm_90", "spills": 0} for name in ("k", "cuda f<float>")]
    recorded = {"versions": {"triton": "1", "nvcc": "13"}, "kernels": rows}
    here = {"versions": {"triton": "1", "nvcc": None}, "kernels": rows[:1]}
    assert aot_table.problems(here, recorded) == []
    assert len(aot_table.problems({**here, "versions": recorded["versions"]}, recorded)) == 1


def row(**changed: object) -> dict:
    kernel = {key: 0 for key in counted_table.SUMS} | {"launches": 1, "blocks": 264, "threads": 264 * 256}
    kernel |= {"shared_bytes": 0, "worst_ways": 1.0, **changed}
    bars = {"floor_bytes": 32 * 1000, "bytes_bar": 1.25, "words_bar": 2.0}
    return {"job": "j", "shape": [1, 1, 10, 100], "dtype": "float32", **bars, "kernels": {"k": kernel}}


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"sectors_read": 1200, "sectors_written": 50}, None),
        ({"sectors_read": 1200, "sectors_written": 60}, "bytes_over_floor is 1.260, the bar is 1.25"),
        ({"shared_load_words": 1500, "shared_store_words": 501}, "words_a_pixel is 2.001, the bar is 2"),
        ({"shared_load_transactions": 1200, "shared_load_ideal": 1000}, "1.20 times the shared transactions"),
        ({"blocks": 263}, "263 blocks for 132 multiprocessors"),
    ],
)
def test_counted_figures_are_held_against_their_bars(changed: dict, says: str | None) -> None:
    found = counted_table.problems([row(**changed)])
    assert [says in text for text in found] == ([] if says is None else [True])


def test_the_recorded_counts_keep_to_the_bars() -> None:
    assert counted_table.problems(counted_table.stored()) == []
