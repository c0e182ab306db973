"""The programs of the stand-in, by name."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from fastvlm_ops.local.apple.script import FaultKind
from fastvlm_ops.local.apple.state import State


def main(program: str, arguments: Sequence[str]) -> int:
    """Run a program.

    :param program: its name
    :param arguments: of its command line
    :returns: its exit code
    """
    state = State.of_environment()
    state.note(program, arguments)
    if program == "xcrun" and arguments:
        program, arguments = arguments[0], arguments[1:]
    if program == "devicectl":
        from fastvlm_ops.local.apple.devicectl import run

        return run(state, arguments)
    if program == "coremlcompiler":
        return _compile(arguments)
    if program == "xcodebuild":
        return _build(state, arguments)
    if program == "sw_vers":
        return _system(state, arguments)
    if program == "sysctl":
        sys.stdout.write(f"{state.script.mac_model}\n")
        return 0
    if program == "ioreg":
        sys.stdout.write('    "IOPlatformUUID" = "00000000-0000-4000-8000-00000000AC01"\n')
        return 0
    if program == "pmset":
        return _power(state, arguments)
    sys.stderr.write(f'xcrun: error: unable to find utility "{program}", not a developer tool or in PATH\n')
    return 72


def add_site() -> None:
    """Let the packages be imported that the programs leave out when they start."""
    import site

    site.main()


def _compile(arguments: Sequence[str]) -> int:
    add_site()
    from fastvlm_ops.local.apple.packages import BrokenPackageError, compile_package

    if len(arguments) != 3 or arguments[0] != "compile":
        sys.stderr.write("usage: coremlcompiler compile MODEL FOLDER\n")
        return 64
    package, folder = Path(arguments[1]), Path(arguments[2])
    try:
        compile_package(package, folder / f"{package.stem}.mlmodelc")
    except BrokenPackageError as error:
        sys.stderr.write(f"coremlcompiler: error: {error}\n")
        return 1
    sys.stdout.write(f"{folder / f'{package.stem}.mlmodelc'}/coremldata.bin\n")
    return 0


def _build(state: State, arguments: Sequence[str]) -> int:
    if arguments == ["-version"]:
        version, build = state.script.xcode
        sys.stdout.write(f"Xcode {version}\nBuild version {build}\n")
        return 0
    settings = dict(
        argument.split("=", 1) for argument in arguments if "=" in argument and argument[0] != "-"
    )
    destination = arguments[list(arguments).index("-destination") + 1]
    udid = dict(part.split("=", 1) for part in destination.split(",") if "=" in part).get("id", "")
    device = state.device(udid)
    name = device.name if device else ""
    if state.fault(FaultKind.SIGNING, name):
        team = settings.get("DEVELOPMENT_TEAM", "")
        sys.stdout.write(
            f'error: No Account for Team "{team}". Add a new account in Accounts settings.\n'
            f"error: No profiles for '{settings.get('PRODUCT_BUNDLE_IDENTIFIER')}' were found: Xcode couldn't"
            " find any iOS App Development provisioning profiles matching it.\n** BUILD FAILED **\n"
        )
        return 65
    if state.fault(FaultKind.BUILD, name):
        sys.stdout.write("ModelService.swift:1:8: error: no such module 'CoreML'\n** BUILD FAILED **\n")
        return 65
    app = Path(settings["SYMROOT"]) / "Release-iphoneos" / "ModelRunner.app"
    app.mkdir(parents=True)
    (app / "ModelRunner").write_text("the stand-in's\n")
    (app / "bundle").write_text(settings["PRODUCT_BUNDLE_IDENTIFIER"])
    sys.stdout.write("** BUILD SUCCEEDED **\n")
    return 0


def _system(state: State, arguments: Sequence[str]) -> int:
    version, build = state.script.macos
    values = {"-productVersion": version, "-buildVersion": build, "-productName": "macOS"}
    if not arguments:
        sys.stdout.write(f"ProductName:\t\tmacOS\nProductVersion:\t\t{version}\nBuildVersion:\t\t{build}\n")
        return 0
    sys.stdout.write(f"{values.get(arguments[0], '')}\n")
    return 0 if arguments[0] in values else 1


def _power(state: State, arguments: Sequence[str]) -> int:
    script = state.script
    if arguments == ["-g", "batt"]:
        source = "AC Power" if script.battery is None else "Battery Power"
        sys.stdout.write(f"Now drawing from '{source}'\n")
        if script.battery is not None:
            charge = f"{script.battery}%; discharging; 3:12 remaining present: true"
            sys.stdout.write(f" -InternalBattery-0 (id=1234567)\t{charge}\n")
    elif arguments == ["-g", "therm"]:
        sys.stdout.write("Note: No thermal warning level has been recorded\n")
        if script.speed_limit < 100:
            sys.stdout.write(f"\tCPU_Scheduler_Limit \t= 100\n\tCPU_Speed_Limit \t= {script.speed_limit}\n")
    elif arguments == ["-g"]:
        sys.stdout.write(f"System-wide power settings:\n lowpowermode         {int(script.low_power)}\n")
    else:
        return 64
    return 0


def hang() -> int:
    """Never come back."""
    while True:
        time.sleep(60)
