"""`semnr guard`."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from ..base.outputs import has_keys, holds, replaceable
from .text import add_category, add_settings, add_verbose, add_waivers, parameters, print_json, say
from .verdicts import show


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "runs",
        nargs="*",
        metavar="RUN",
        help="scored runs, BEFORE and AFTER: the released or baseline denoiser and the candidate, on the same tiles "
        "and reference; or the candidate's alone",
    )
    judged = parser.add_argument_group("how it is judged")
    judged.add_argument("--rules", metavar="FILE", help="rules (TOML); default: the built-in ones")
    add_category(judged)
    add_waivers(judged)
    judged.add_argument("--baseline", metavar="FILE", help="a file of --write-baseline in place of BEFORE")
    results = parser.add_argument_group("results")
    results.add_argument("--write-baseline", metavar="FILE", help="write AFTER as a baseline if no rule fired on it")
    results.add_argument("--junit", metavar="FILE", help="also write JUnit XML, one test case a rule")
    results.add_argument("--out", metavar="FILE", help="also write the verdict as JSON")
    results.add_argument("--mlflow", action="store_true", help="also log to the active MLflow run (needs mlflow)")
    results.add_argument("--json", action="store_true", help="print JSON for machines")
    add_verbose(results)
    again = parser.add_argument_group("where a second frame would help")
    again.add_argument("--rescan", metavar="KLARF", help="write the sites where it could change the verdict")
    again.add_argument("--sites", type=int, default=50, metavar="N", help="at most so many; default %(default)s")
    again.add_argument("--wafer", metavar="FILE", help="layout of the wafer (TOML), where the run knows none")
    again.add_argument("--klarf", choices=("1.2", "1.8"), default="1.2", help="version of the file; default 1.2")
    learn = parser.add_argument_group("learn thresholds from harmless re-imagings, or from accepted lots")
    learn.add_argument(
        "--learn",
        metavar="SOURCE",
        help="tiles to image anew, `synthetic`, or `accepted`: the runs given are of lots that were accepted; writes "
        "--rules-out",
    )
    learn.add_argument("--rules-out", metavar="FILE", help="the learnt rules (TOML, with where they come from)")
    learn.add_argument("--denoise", metavar="MODEL", help="the released denoiser, thereby taken for harmless")
    add_settings(learn, "NAME=VALUE", help="with --denoise: sigma=0.5")
    learn.add_argument("--false-alarm", type=float, default=0.01, metavar="P", help="share of tiles; default 0.01")
    learn.add_argument("--tiles", type=int, default=48, metavar="N", help="scenes; default %(default)s")
    learn.add_argument("--frames", type=int, default=3, metavar="N", help="frames of each; default %(default)s")
    learn.add_argument("--seed", type=int, default=0, help="default %(default)s")
    bound = parser.add_argument_group("with --learn: a rule whose false alarms are bounded")
    bound.add_argument("--level", type=float, metavar="P", help="of a random tile of a harmless field; 0.01 for 1 %%")
    bound.add_argument("--wafer-level", type=float, default=0.05, metavar="P", help="of a harmless wafer; default 0.05")
    bound.add_argument("--fields-per-wafer", type=int, default=1, metavar="N", help="default %(default)s")
    bound.add_argument(
        "--unit",
        metavar="NAME",
        help="with `accepted`, what is exchangeable: die (default), wafer, lot, tile or a column",
    )
    bound.add_argument("--strata", metavar="A,B", default="", help="columns by which fields differ: pattern,dose")
    bound.add_argument("--doses", metavar="A,B", default="1", help="multiples of the dose to image at; default 1")


def run(args: argparse.Namespace) -> int:
    if args.learn is not None:
        return _learn(args)
    from ..base.files import atomic, write_json
    from ..guarding import DEFAULT_RULES, ON_THE_RUN, guard, load_rules, read_baseline, write_baseline, write_sites
    from ..guarding.junit_xml import junit
    from ..runs import Run

    alone = len(args.runs) == 1
    if len(args.runs) not in ((1,) if args.baseline is not None else (1, 2)):
        accepted = "the candidate's run with --baseline" if args.baseline is not None else "BEFORE and AFTER, or AFTER"
        raise ValueError(f"{len(args.runs)} runs are given ({' '.join(args.runs) or 'none'}); accepted: {accepted}")
    if args.out:
        replaceable("out", args.out, "a verdict", has_keys("passed", "signals"))
    if args.junit:
        replaceable("junit", args.junit, "a guard's JUnit", holds(b"semnr.guard"))
    if args.write_baseline:
        replaceable("write-baseline", args.write_baseline, "a baseline", has_keys("format", "tiles", "columns"))
    if args.rescan:
        replaceable("rescan", args.rescan, "a run's sites to image again", holds(b'"semnr"'))
    started = time.monotonic()
    before = None if alone else Run.open(args.runs[0]).profile()
    before = read_baseline(args.baseline) if args.baseline is not None else before
    after = Run.open(args.runs[-1]).profile()
    if args.category and not args.rules:
        raise ValueError(f"--category is {args.category!r} without --rules; accepted: both")
    rules = load_rules(args.rules, args.category) if args.rules else DEFAULT_RULES
    verdict = guard(before, after, rules=rules, allow_unknown=tuple(args.waive))
    if args.out:
        write_json(Path(args.out), verdict.to_dict())
    if args.junit:
        with atomic(Path(args.junit)) as temporary:
            temporary.write_text(junit(verdict, seconds=time.monotonic() - started), encoding="utf-8")
    if args.mlflow:
        from ..guarding.mlflow import log

        log(verdict, after)
    written = ""
    if args.write_baseline:
        # the first baseline has nothing to be compared with; a later one must have passed
        lacking = {signal.name for signal in verdict.lacking}
        good = not verdict.fired and not lacking & set(ON_THE_RUN) if before is None else verdict.passed
        if good:
            write_baseline(after, args.write_baseline, allow_unknown=verdict.waived)
        written = f"baseline: {'written to' if good else 'the gate is shut, not written to'} {args.write_baseline}"
    if args.rescan:
        options = {"rules": rules, "sites": args.sites, "version": args.klarf, "wafer": args.wafer}
        sites, placeless = write_sites(after, args.rescan, **options)
        lost = f" ({placeless} more have no place on a wafer)" if placeless else ""
        written = "; ".join(filter(None, [written, f"rescan: {len(sites) - placeless} sites in {args.rescan}{lost}"]))
    if args.json:
        print_json(verdict.to_dict())
    else:
        show(verdict, verbose=args.verbose)
        if written:
            say(written)
    return verdict.exit_code


def _learn(args: argparse.Namespace) -> int:
    from ..guarding import DEFAULT_RULES, load_rules
    from ..stress import learn_accepted, learn_rules
    from ..stress.learn import learnt_place

    accepted = args.learn == "accepted"
    if bool(args.runs) != accepted or args.rules_out is None:
        raise ValueError("--learn needs --rules-out FILE, and runs with `accepted` alone")
    learnt_place(args.rules_out)
    shared = {
        "rules": load_rules(args.rules) if args.rules else DEFAULT_RULES,
        "wafer_level": args.wafer_level,
        "fields_per_wafer": args.fields_per_wafer,
        "strata": tuple(filter(None, args.strata.split(";" if ";" in args.strata else ","))),
        "seed": args.seed,
    }
    if accepted:
        learnt = learn_accepted(
            args.runs, level=0.01 if args.level is None else args.level, unit=args.unit or "die", **shared
        )
    elif args.unit is not None:
        raise ValueError(f"--unit is {args.unit!r}; accepted: with --learn accepted, a scene is a field otherwise")
    else:
        learnt = learn_rules(
            None if args.learn == "synthetic" else args.learn,
            model=args.denoise,
            parameters=parameters(args.set),
            false_alarm=args.false_alarm,
            tiles=args.tiles,
            frames=args.frames,
            level=args.level,
            doses=_numbers("doses", args.doses),
            **shared,
        )
    learnt.save(args.rules_out)
    if args.json:
        print_json(dict(learnt.provenance))
        return 0
    if accepted:
        say(f"a rule learnt from {len(args.runs)} accepted runs, written to {args.rules_out}")
    else:
        say(f"rules learnt at {args.false_alarm:g} false alarms a tile, written to {args.rules_out}")
    if "calibration_fields" in learnt.provenance:
        counted = ", ".join(f"{count} of {kind}" for kind, count in learnt.provenance["calibration_fields"].items())
        levels = f"{learnt.provenance['level']:g} a tile and {learnt.provenance['wafer_level']:g} a wafer"
        say(f"conformal: false alarms at most {levels}; calibration fields: {counted}")
    if not accepted:
        say("flagged of one more, unseen frame:")
        for name, share in learnt.provenance["unseen_frame_flagged"].items():
            say(f"  {name}: {'not evaluated' if share != share else f'{share:.1%}'}")
    return 0


def _numbers(name: str, text: str) -> tuple[float, ...]:
    try:
        return tuple(map(float, text.split(",")))
    except ValueError:
        raise ValueError(f"--{name} is {text!r}; accepted: numbers, such as 0.5,1") from None
