"""Which precision a processor computes fastest in."""

import os

import pytest
import torch

from ojala.models.serving.precision import fastest_precision, has_native_bf16

pytestmark = pytest.mark.processor


def test_instructions_are_those_that_torch_finds():
    can = torch.cpu.get_capabilities()
    instructions = bool(can.get("avx512_bf16") or can.get("amx_bf16"))
    allowed = torch.backends.cpu.get_cpu_capability() not in ("DEFAULT", "AVX2")
    if "ONEDNN_MAX_CPU_ISA" not in os.environ:
        assert has_native_bf16() == (instructions and allowed)
    assert fastest_precision("cuda") == "bf16"


def test_instructions_are_looked_up_without_torch(tmp_path, monkeypatch):
    cpuinfo = tmp_path / "cpuinfo"
    monkeypatch.setattr("ojala.models.serving.precision._CPUINFO", cpuinfo)
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    monkeypatch.delenv("ATEN_CPU_CAPABILITY", raising=False)
    cpuinfo.write_text("flags\t\t: fpu avx512f avx512_bf16\n")
    assert has_native_bf16()
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "avx2")
    assert not has_native_bf16()
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "avx512")
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert not has_native_bf16()
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA")
    cpuinfo.write_text("flags\t\t: fpu avx2\n")
    assert not has_native_bf16()
