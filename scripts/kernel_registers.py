#!/usr/bin/env python3
"""Compiles kernels/*.cu for every card that build.rs names and writes what each kernel takes, in registers and spilled bytes, to the table of
kernels/README.md.

    python3 scripts/kernel_registers.py [--jobs 2] [--check]

--check: writes nothing; exit code 1 if a kernel spills that the table does not know to spill. NVCC: the compiler, else third_party/cuda's.
Kernels whose names differ in a head size or a format alone stand in one row, from the least to the most."""
import argparse, concurrent.futures, os, pathlib, re, subprocess, sys, tempfile

root = pathlib.Path(__file__).resolve().parent.parent
targets = sorted(set(re.findall(r"code=(sm_\w+)", (root / "build.rs").read_text())))
nvcc = os.environ.get("NVCC", str(root / "third_party/cuda/bin/nvcc"))
begin, end = "<!-- registers: scripts/kernel_registers.py -->", "<!-- end of registers -->"
formats, sizes = ["bf16_fp8", "f16_fp8", "f32_fp8", "bf16", "f16", "f32"], [16, 32, 64, 80, 96, 128, 192, 256]


def compiled(source, target):
    """[(kernel, registers, spilled bytes)]: ptxas says them one after the other."""
    arch = target.replace("sm_", "compute_")
    with tempfile.TemporaryDirectory() as folder:
        command = [nvcc, "-std=c++17", "-O3", "-Werror", "all-warnings", "-cubin", f"-gencode=arch={arch},code={target}",
                   "-Xptxas", "-v", "-o", f"{folder}/out.cubin", str(source)]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{source.name} for {target}: {done.stderr[-2000:]}")
    found = []
    for part in done.stderr.split("Compiling entry function '")[1:]:
        name = part.split("'", 1)[0].removeprefix("pairwright_")
        spilled = int(re.search(r"(\d+) bytes spill stores", part).group(1))
        found.append((name, int(re.search(r"Used (\d+) registers", part).group(1)), spilled))
    return found


def family(name):
    """A kernel's name without format and head size, and how wide its numbers are."""
    size = next((str(size) for size in sizes if name.endswith(f"_{size}")), "")
    if size:
        name = name.removesuffix(f"_{size}")
    format = next((format for format in formats if name.endswith(f"_{format}")), "")
    name = name.removesuffix(f"_{format}") if format else name
    width = "" if not format else ("32 bits" if format.startswith("f32") else "16 bits")
    # A product's size is that of its tiles.
    large = "" if not size or "product" in name else " D > 128" if int(size) > 128 else " D <= 128"
    return name, (width + large).strip()


def shown(kernels):
    registers, spilled = [kernel[0] for kernel in kernels], max(kernel[1] for kernel in kernels)
    least, most = min(registers), max(registers)
    return (str(most) if least == most else f"{least}–{most}") + (f" ({spilled})" if spilled else "")


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--jobs", type=int, default=2)
    arguments.add_argument("--check", action="store_true")
    arguments = arguments.parse_args()
    work = [(source, target) for source in sorted((root / "kernels").glob("*.cu")) for target in targets]
    rows = {}
    with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
        for (source, target), kernels in zip(work, pool.map(lambda pair: compiled(*pair), work)):
            print(f"{source.name} for {target}: {len(kernels)} kernels", file=sys.stderr)
            for name, registers, spilled in kernels:
                rows.setdefault(family(name), {}).setdefault(target, []).append((registers, spilled))
    table = ["| kernel | " + " | ".join(targets) + " |", "|---|" + "---|" * len(targets)]
    for (name, what), cells in sorted(rows.items()):
        cells = [shown(cells[target]) if target in cells else "–" for target in targets]
        table.append(f"| {name}{', ' + what if what else ''} | " + " | ".join(cells) + " |")
    readme = root / "kernels/README.md"
    text = readme.read_text()
    before, rest = text.split(begin)
    known, after = rest.split(end)
    if arguments.check:
        spills = lambda lines: {line.split("|")[1].strip() for line in lines if re.search(r"\(\d+\)", line)}
        new = spills(table) - spills(known.splitlines())
        sys.exit(f"these spill, and the table does not say so: {', '.join(sorted(new))}" if new else 0)
    readme.write_text(before + begin + "\n" + "\n".join(table) + "\n" + end + after)


main()
