"""The graph: task names, who needs whom, which function runs. `./doit list` shows it, `./doit help` explains doit."""

from functools import partial

from doit import get_var
from doit.doit_cmd import _CMDLINE_VARS
from doit.exceptions import InvalidDodoFile, TaskFailed
from doit.tools import config_changed

from pipeline import task
from pipeline.assemble import stage as assemble
from pipeline.assemble.model import AssembleParams, AssembleResult, Wanted
from pipeline.build import dom0, image, init, kernel
from pipeline.build.model import (
    Dom0Params,
    Dom0Result,
    ImageParams,
    ImageResult,
    InitParams,
    InitResult,
    KernelParams,
    KernelResult,
)
from pipeline.bundle import spec as specs
from pipeline.bundle import stage as bundle
from pipeline.bundle.model import BundleResult
from pipeline.config import load_config
from pipeline.errors import SentenceError
from pipeline.extension import stage as extension
from pipeline.extension.model import ExtensionParams, ExtensionResult
from pipeline.fetch import lock as tags
from pipeline.fetch import stage as fetch
from pipeline.fetch.model import FetchParams, FetchResult
from pipeline.fetch.reference import RecipeReference, parse
from pipeline.initrd import stage as initrd
from pipeline.initrd.model import InitrdParams, InitrdResult
from pipeline.recipe import PROJECT, maker_of, names
from pipeline.squash import stage as squash
from pipeline.squash.model import SquashParams, SquashResult
from pipeline.unpack import stage as unpack
from pipeline.unpack.model import UnpackParams, UnpackResult
from runtime.host import commands

task.BUILD.mkdir(exist_ok=True)
DOIT_CONFIG = {
    "default_tasks": ["bundle"],
    "backend": "sqlite3",
    "dep_file": str(task.BUILD / "doit.sqlite3"),
    "verbosity": 2,
    "reporter": task.Reporter,
}
FLAVOURS = ("debian12", "debian13")
LOCKS = task.BUILD / "lock"
IMAGE_LOCK = PROJECT / "images.lock.json"
PYTHON = PROJECT / ".venv" / "bin" / "python"

try:
    task.check_variables(_CMDLINE_VARS or {})
    task.use(offline=get_var("offline", "no"), cache=get_var("cache", ""))
    LIMITS = load_config().limits
    ZONES, REFUSED = specs.load_zones([get_var("zone")] if get_var("zone") else names(specs.ZONES), parse)
    KERNELS = {task.slug(spec.kernel): spec.kernel for spec in ZONES.values()}
    EXTENSIONS = task.named(choice.image for spec in ZONES.values() for choice in spec.extensions)
    NAMED = {name: spec.image for name, spec in ZONES.items()} | KERNELS | EXTENSIONS
    LOCKED = tags.read_lock(IMAGE_LOCK)
    IMAGES = {name: tags.pinned(reference, LOCKED) for name, reference in NAMED.items()}
    REFERENCES = {name: parse(reference) for name, reference in IMAGES.items()}
    PUBLISHED = maker_of(get_var("recipe")) if get_var("recipe") else ""
    MADE_BY = {name: maker_of(to.name) for name, to in REFERENCES.items() if isinstance(to, RecipeReference)}
except SentenceError as error:
    raise InvalidDodoFile(str(error)) from None


def attempt(function, *arguments):
    """Run an action: users read our sentence, not a traceback."""
    try:
        function(*arguments)
    except SentenceError as error:
        return TaskFailed(str(error))
    except KeyboardInterrupt:
        task.interrupted()


def stage_task(result, stage, name, module, params, *, needs=(), file_dep=(), tag="", always=False):
    """One stage for one name: up to date while its inputs, its parameters and every blob it made are as they were.

    params: what the stage's `run` takes, or a class (or partial) to be filled with the results it needs.
    tag: the name in the store that the stage gives to what it makes.
    always: it reads files of the user's, of which nobody can say whether they are as they were but who reads them.
    """
    return {
        "name": name,
        "actions": [(attempt, [task.execute, stage, name, task.stage(module.run, params), needs])],
        "file_dep": [*file_dep, *(task.result_path(upper, of) for _, upper, of in needs)],
        "targets": [task.result_path(stage, name)],
        "uptodate": [
            not always,
            config_changed(f"{module.VERSION} {params!r}"),
            partial(task.holds, result, stage, name, tag),
        ],
        "clean": True,
    }


def command_task(function, *arguments, needs=()):
    """A task that is asked for and always runs."""
    return {"actions": [(attempt, [function, *arguments])], "task_dep": list(needs), "uptodate": [False]}


def refused_tasks():
    """For each zone whose file cannot be read as one, a task that says why, in the place of the stage's own."""
    for name, error in REFUSED.items():
        yield {"name": name, **command_task(task.refuse, error)}


def task_recipe():
    """image recipes of zones/recipes -> OCI images"""
    for name in names(image.RECIPES):
        params = ImageParams(name, image.load(name), str(LOCKS / f"{name}.json"))
        files = [image.RECIPES / f"{name}.toml"]
        yield stage_task(ImageResult, "recipe", name, image, params, file_dep=files, tag=f"recipe/{name}")


def task_kernel():
    """kernel recipes of kernel/ -> kernel images"""
    for name in names(kernel.RECIPES):
        params = KernelParams(name, kernel.load(name), str(LOCKS / f"{name}.json"))
        files = [kernel.RECIPES / f"{name}.toml"]
        yield stage_task(KernelResult, "kernel", name, kernel, params, file_dep=files, tag=f"kernel/{name}")


def task_os():
    """recipes of os/ -> the lab's dom0 images, the zone's init"""
    for name in dom0.flavours():
        params = Dom0Params(name, dom0.load(name), str(LOCKS))
        files = [path for path in sorted((dom0.RECIPES / "dom0").rglob("*")) if path.is_file()]
        yield stage_task(Dom0Result, "os", name, dom0, params, file_dep=files, tag=f"os/{name}")
    params = InitParams("init", init.load(), str(LOCKS / "os-init.json"))
    yield stage_task(InitResult, "os", "init", init, params, file_dep=init.sources().values(), tag="os/init")


def task_fetch():
    """image references -> verified blobs in the store"""
    for name, reference in IMAGES.items():
        results = [task.result_path(*MADE_BY[name].split(":"))] if name in MADE_BY else []
        one = stage_task(FetchResult, "fetch", name, fetch, FetchParams(reference), file_dep=results)
        if name not in MADE_BY and REFERENCES[name].digest is None:
            one["uptodate"].append(False)  # a tag may name another image by now: that takes one request
        yield one
    yield from refused_tasks()


def task_lock():
    """pin the tags of image references to digests, in images.lock.json: ./doit lock [zone=NAME]"""
    lock = partial(tags.lock, whole=not get_var("zone"))
    # The tags of a zone that cannot be read would lose their digests.
    return command_task(lock, IMAGE_LOCK, NAMED.values(), task.env, needs=[f"bundle:{name}" for name in REFUSED])


def task_unpack():
    """layers -> merged tree; nothing is extracted"""
    for name in IMAGES:
        needs = [(FetchResult, "fetch", name)]
        yield stage_task(UnpackResult, "unpack", name, unpack, partial(UnpackParams, limits=LIMITS), needs=needs)
    yield from refused_tasks()


def task_squash():
    """merged tree -> squashfs"""
    for name in ZONES:
        needs = [(UnpackResult, "unpack", name)]
        yield stage_task(SquashResult, "squash", name, squash, SquashParams, needs=needs)
    yield from refused_tasks()


def task_initrd():
    """kernel image and init -> kernel ELF and initrd segments"""
    for name in KERNELS:
        needs = [(UnpackResult, "unpack", name), (InitResult, "os", "init")]
        yield stage_task(InitrdResult, "initrd", name, initrd, InitrdParams, needs=needs)


def task_extension():
    """extension images -> initrd segments, trees for the addons disk"""
    for name in EXTENSIONS:
        needs = [(FetchResult, "fetch", name), (UnpackResult, "unpack", name)]
        yield stage_task(ExtensionResult, "extension", name, extension, ExtensionParams, needs=needs)


def task_assemble():
    """kernel, init and extensions -> a zone's initrd, modules and addons disk"""
    of = {reference: name for name, reference in EXTENSIONS.items()}
    for name, spec in ZONES.items():
        wanted = Wanted(name, spec.image, spec.kernel, spec.extensions, spec.modules)
        needs = [
            (InitrdResult, "initrd", task.slug(spec.kernel)),
            (UnpackResult, "unpack", name),
            *((ExtensionResult, "extension", of[choice.image]) for choice in spec.extensions),
        ]
        params = partial(AssembleParams.of, wanted)
        yield stage_task(AssembleResult, "assemble", name, assemble, params, needs=needs)
    yield from refused_tasks()


def task_bundle():
    """everything a zone boots from, named by digest: ./doit bundle zone=NAME"""
    for name, spec in ZONES.items():
        needs = [
            (FetchResult, "fetch", name),
            (UnpackResult, "unpack", name),
            (SquashResult, "squash", name),
            (InitrdResult, "initrd", task.slug(spec.kernel)),
            (AssembleResult, "assemble", name),
        ]
        params, files = partial(bundle.BundleParams, spec), any(volume.kind == "squashfs" for volume in spec.volumes)
        yield stage_task(BundleResult, "bundle", name, bundle, params, needs=needs, always=files, tag=f"zones/{name}")
    yield from refused_tasks()


def task_boot():
    """boot a zone and wait until its ports answer: ./doit boot zone=NAME [wait=no]"""
    needs = [f"bundle:{name}" for name in (*ZONES, *REFUSED) if name == get_var("zone")]
    return command_task(
        commands.boot, get_var("zone"), get_var("wait", "yes"), get_var("host"), needs=[*needs, "_host"]
    )


def task_publish():
    """push a zone's bundle, or a recipe's image: ./doit publish zone=NAME|recipe=NAME to=HOST/REPOSITORY[:TAG]"""
    needs = [PUBLISHED] if PUBLISHED else [f"bundle:{name}" for name in (*ZONES, *REFUSED) if name == get_var("zone")]
    return command_task(commands.publish, get_var("zone"), get_var("recipe"), get_var("to"), needs=needs)


def task__host():
    """what the host that zones boot on is made of"""
    return {"actions": None, "task_dep": [f"os:{name}" for name in commands.host_images(get_var("host"))]}


def task_stop():
    """stop a zone: ./doit stop zone=NAME"""
    return command_task(commands.stop, get_var("zone"), get_var("host"))


def task_test():
    """lint, types and every test, by two processes; ./doit test ARGUMENTS hands them to one pytest"""
    checks = [
        [PYTHON, "-m", "ruff", "check", "--quiet", "."],
        [PYTHON, "-m", "ruff", "format", "--check", "--quiet", "."],
    ]
    checks += [[PYTHON, "-m", "mypy", "--no-error-summary"]]
    return {
        "actions": [(task.run_checks, [checks, [PYTHON, "-m", "pytest"], ["-n", "2", "--no-loadscope-reorder"]])],
        "pos_arg": "arguments",
        "task_dep": ["bundle:nginx", "os:debian12"] if "nginx" in ZONES else [],
        "uptodate": [False],
    }


def task_flavours():
    """the lab tests on both dom0s, Debian 12 and 13; ./doit test runs them on the first"""
    runs = [["env", f"ZONEWRIGHT_LAB_FLAVOUR={name}", PYTHON, "-m", "pytest", "tests/lab"] for name in FLAVOURS]
    return {
        "actions": [(task.run_checks, [runs[:-1], runs[-1]])],
        "task_dep": ["bundle:nginx", *(f"os:{name}" for name in FLAVOURS)] if "nginx" in ZONES else [],
        "uptodate": [False],
    }


def task_faults():
    """every kill and error point of publish, pack, gc, of a boot and a teardown, of which ./doit test takes a sample"""
    places = ["tests/pipeline/faults", "tests/runtime/faults", "tests/lab/test_lab_faults.py"]
    sweep = ["env", "ZONEWRIGHT_FAULTS=all", PYTHON, "-m", "pytest", "-s", *places]
    return {"actions": [(task.run_checks, [[], sweep])], "pos_arg": "arguments", "uptodate": [False]}


def task_soak():
    """long runs, most of them on the lab, that ./doit test leaves out: ./doit soak [ARGUMENTS for pytest]"""
    long = [PYTHON, "-m", "pytest", "-m", "soak", "tests"]
    return {
        "actions": [(task.run_checks, [[], long])],
        "pos_arg": "arguments",
        "task_dep": ["bundle:nginx", "os:debian12"] if "nginx" in ZONES else [],
        "uptodate": [False],
    }


def task_bench():
    """measure, compare with goals: ./doit bench [boot|pipeline|fresh|command|zone|init|net|netback]"""
    return {
        "actions": [(task.run_checks, [[], [PYTHON, "tests/bench/run.py"]])],
        "pos_arg": "arguments",
        "uptodate": [False],
    }
