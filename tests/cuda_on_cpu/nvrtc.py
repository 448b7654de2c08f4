"""What NVIDIA's compiler makes of a kernel, on a machine without a GPU.

    compiled = compile(code, ["scan<float, 2>"], "sm_90")
    compiled.spills, compiled.registers, compiled.float64

Uses NVRTC through CuPy where CuPy is installed, else `nvcc` on the PATH; `missing()` says why
neither can be used. What is found is listed by kernel, as `scan<float, 2>(float*, long long)`.
"""

import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ARCHITECTURES = ("sm_80", "sm_90")
STANDARD = "--std=c++17"
_PROPERTIES = re.compile(
    r"Function properties for (\S+)\s*\n[^\n]*?(\d+) bytes stack frame, (\d+) bytes spill stores, "
    r"(\d+) bytes spill loads(?:\s*\n[^\n]*?Used (\d+) registers)?"
)
_BODY = re.compile(
    r"^(?:\.visible |\.weak )*\.(?:entry|func)[^{;]*?(\w+)\([^{;]*\{(.*?)^\}", re.M | re.S
)
_DECLARATION = re.compile(r"^\s*\.\w")  # of registers, parameters, alignment


@dataclass(frozen=True)
class Compiled:
    """Code for one architecture, and what the compiler says of each kernel."""

    ptx: str
    cubin: bytes
    log: str

    @property
    def spills(self) -> dict[str, int]:
        """Bytes of registers stored to memory for want of room."""
        return {name: stores for name, (stores, _) in self._properties().items()}

    @property
    def registers(self) -> dict[str, int]:
        """Registers of a thread."""
        return {name: registers for name, (_, registers) in self._properties().items()}

    @property
    def float64(self) -> dict[str, list[str]]:
        """Instructions on float64, of kernels that have any."""
        return float64_instructions(self.ptx)

    def _properties(self) -> dict[str, tuple[int, int]]:
        found = _PROPERTIES.findall(self.log)
        names = _demangled([name for name, *_ in found])
        return {
            names[name]: (max(int(stores), int(loads)), int(registers or 0))
            for name, _, stores, loads, registers in found
        }


def float64_instructions(ptx: str) -> dict[str, list[str]]:
    """Return, of each kernel or function in PTX that has any, the instructions on float64."""
    bodies = _BODY.findall(ptx)
    names = _demangled([name for name, _ in bodies])
    found = {}
    for name, body in bodies:
        lines = [line.strip() for line in body.splitlines() if not _DECLARATION.match(line)]
        instructions = [line for line in lines if ".f64" in line]
        if instructions:
            found[names[name]] = instructions
    return found


def compile(code: str, names: Sequence[str], arch: str, options: Sequence[str] = ()) -> Compiled:
    """Compile the kernels of these names (or name expressions); RuntimeError with the log."""
    compiler = _by_nvcc if _nvrtc_missing() else _by_nvrtc
    return compiler(code, tuple(names), arch, tuple(options))


def missing() -> str | None:
    """Return why nothing can be compiled here, or None."""
    nvrtc, nvcc = _nvrtc_missing(), shutil.which("nvcc")
    return None if nvrtc is None or nvcc else f"{nvrtc}, and there is no nvcc on the PATH"


def _nvrtc_missing() -> str | None:
    try:
        from cupy.cuda import nvrtc

        nvrtc.getVersion()
    except Exception as cause:  # whatever a broken installation raises
        return f"NVRTC cannot be used through CuPy ({cause})"
    return None if hasattr(nvrtc, "createProgram") else "this is the double of CuPy"


def _by_nvrtc(code: str, names: tuple, arch: str, options: tuple) -> Compiled:
    from cupy.cuda import nvrtc

    program = nvrtc.createProgram(code, "kernel.cu", (), ())
    try:
        for name in names:
            nvrtc.addNameExpression(program, name)
        flags = (STANDARD, f"-arch={arch}", "--ptxas-options=-v", *options)
        try:
            nvrtc.compileProgram(program, flags)
        except nvrtc.NVRTCError as cause:
            raise RuntimeError(nvrtc.getProgramLog(program)) from cause
        ptx = nvrtc.getPTX(program)
        text = ptx.decode() if isinstance(ptx, bytes) else ptx
        return Compiled(text, nvrtc.getCUBIN(program), nvrtc.getProgramLog(program))
    finally:
        nvrtc.destroyProgram(program)


def _by_nvcc(code: str, names: tuple, arch: str, options: tuple) -> Compiled:
    # A kernel whose address the host takes is instantiated.
    wanted = "".join(f"void* wanted_{i}() {{ return (void*)&{n}; }}\n" for i, n in enumerate(names))
    with tempfile.TemporaryDirectory() as folder:
        source, ptx, cubin = (Path(folder, f"kernel.{end}") for end in ("cu", "ptx", "cubin"))
        source.write_text(f'#line 1 "kernel.cu"\n{code}\n#line 1 "name_expressions"\n{wanted}')
        flags = ["nvcc", f"-arch={arch}"]
        log = _run([*flags, STANDARD, *options, "-ptx", str(source), "-o", str(ptx)])
        log += _run([*flags, "-cubin", "-Xptxas", "-v", str(ptx), "-o", str(cubin)])
        return Compiled(ptx.read_text(), cubin.read_bytes(), log)


def _run(command: list[str]) -> str:
    run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode:
        raise RuntimeError(run.stdout + run.stderr)
    return run.stdout + run.stderr


def _demangled(names: list[str]) -> dict[str, str]:
    if not names or not shutil.which("c++filt"):
        return {name: name for name in names}
    lines = _run(["c++filt", *names]).splitlines()
    # The result type of a template is part of its name; nobody asks for it.
    return {name: re.sub(r"^void ", "", line) for name, line in zip(names, lines, strict=True)}
