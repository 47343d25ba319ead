# SPDX-License-Identifier: Apache-2.0
"""Makes images, times imgfsck and qemu-img on them in turn, writes docs/performance.md.

Ratios compare commands that ran in turn on the same image in the same run. What was measured is
kept in build/release/bench/results.json, so that a single case can be measured again.
"""

import argparse
import json
import os
import pathlib
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

import cases
import page

ROOT = pathlib.Path(__file__).resolve().parent.parent
BUILD = ROOT / 'build' / 'release'
RESULTS = BUILD / 'bench' / 'results.json'
PAGE = ROOT / 'docs' / 'performance.md'
SOURCES = ('base', 'io', 'model', 'formats', 'chain', 'analyzers', 'repair', 'report', 'tools')
PRIORITY = -20


def claim_processor():
    """A session of its own at the highest priority, for both sides alike; says what it got."""
    got = []
    try:
        os.setsid()  # a scheduling group of its own, where the kernel groups by session
    except PermissionError:
        pass  # a session leader already
    try:
        os.setpriority(os.PRIO_PROCESS, 0, PRIORITY)
        got.append(f'nice {PRIORITY}')
        pathlib.Path('/proc/self/autogroup').write_text(str(PRIORITY))
        got.append('of the scheduling group too')
    except OSError as error:
        print(f'measure: no priority over other processes: {error}', file=sys.stderr)
    return ', '.join(got) or 'ordinary priority'


def argv_of(command, image):
    words = [word.replace('IMAGE', str(image)).replace('DIR', str(image.parent))
             for word in shlex.split(command)]
    if words[0].startswith('img'):
        words[0] = str(BUILD / 'bin' / words[0])
    if words[0].endswith('.py'):
        words = [sys.executable, '-B', str(ROOT / 'bench' / words[0]), *words[1:]]
    if words[0].startswith('bench_'):
        words[0] = str(BUILD / 'bench' / words[0])
    return words


def run_once(case, label, image):
    """One timed run; ends the program when the command does not answer what it must."""
    target = image
    if case.fresh_copy:
        target = image.with_name('copy.qcow2')
        subprocess.run(['cp', '--sparse=always', image, target], check=True)
        os.sync()
    cold = ['--cold', target] if case.cold else []
    timed = subprocess.run([BUILD / 'bench' / 'bench_time_one', *cold,
                            *argv_of(case.commands[label], target)],
                           check=True, capture_output=True, text=True)
    result = json.loads(timed.stdout)
    for name in case.leaves:
        (image.parent / name).unlink(missing_ok=True)
    if case.fresh_copy:
        for left in image.parent.glob('copy.qcow2*'):
            left.unlink()
    if result['status'] != case.status.get(label, 0):
        sys.exit(f'measure: {case.name}: {case.commands[label]}: status {result["status"]}')
    return result


def rounds_for(case, seconds):
    """How often to repeat when the slowest command took so long."""
    return 1 if case.long or seconds > 25 else 3 if seconds > 8 else 5


def measure(case, folder):
    image = folder / 'image.qcow2'
    commands = case.make if isinstance(case.make, list) else [
        f'bench_make_image {case.make} IMAGE']
    for command in commands:
        subprocess.run(argv_of(command, image), check=True, stdout=subprocess.DEVNULL)
    runs = {label: [] for label in case.commands}
    slowest = 0.0
    done = 0
    fast = [label for label in runs if label.startswith('img')]
    try:
        while done == 0 or done < rounds_for(case, slowest):
            for label in runs:
                result = run_once(case, label, image)
                runs[label].append(result)
                slowest = max(slowest, result['wall'])
                print(f'  {label}: {result["wall"]:.3f} s, {result["rss_kib"] / 1024:.0f} MiB',
                      flush=True)
            done += 1
        # Where the slow side runs once, the quick one is still worth a median.
        while fast and len(runs[fast[0]]) < 5 and not case.fresh_copy:
            for label in fast:
                runs[label].append(run_once(case, label, image))
    finally:
        for left in folder.iterdir():
            left.unlink()
    return {label: summary(results) for label, results in runs.items()}


def summary(results):
    walls = [result['wall'] for result in results]
    return {'runs': len(walls), 'min': min(walls), 'median': statistics.median(walls),
            'max': max(walls), 'cpu': statistics.median(r['cpu'] for r in results),
            'rss_kib': max(r['rss_kib'] for r in results)}


def commit():
    """The last commit that changed what the tools are built from."""
    def git(*words):
        return subprocess.run(['git', '-C', ROOT, *words, '--', *SOURCES], check=True,
                              capture_output=True, text=True).stdout.strip()
    changed = ' with changes' if git('status', '--porcelain') else ''
    return git('log', '-1', '--format=%h') + changed


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('case', nargs='*', help=', '.join(case.name for case in cases.CASES))
    parser.add_argument('--long', action='store_true',
                        help='also the cases that take 10 minutes and more')
    parser.add_argument('--dir', help='where the images go, 9 GiB at most (default: $TMPDIR)')
    parser.add_argument('--page-only', action='store_true',
                        help='measure nothing, write the page from the results kept')
    options = parser.parse_args()
    unknown = set(options.case) - {case.name for case in cases.CASES}
    if unknown:
        parser.error('no such case: ' + ', '.join(sorted(unknown)))
    if not shutil.which('qemu-img'):
        parser.error('qemu-img is missing (Debian: qemu-utils)')

    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    wanted = [] if options.page_only else [
        case for case in cases.CASES
        if (case.name in options.case if options.case else options.long or not case.long)]
    # Both end the commands and remove the images, even where a shell had SIGINT ignored.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit(32))
    priority = claim_processor() if wanted else ''
    with tempfile.TemporaryDirectory(prefix='imgfsck-bench-', dir=options.dir) as folder:
        for case in wanted:
            print(case.name, flush=True)
            entry = {'commit': commit(), 'date': time.strftime('%Y-%m-%d', time.gmtime()),
                     'priority': priority, 'load': os.getloadavg()[0]}
            entry['commands'] = measure(case, pathlib.Path(folder))
            kept[case.name] = entry
            RESULTS.write_text(json.dumps(kept, indent=1))
    PAGE.write_text(page.render(cases.CASES, cases.FLOORS, kept))
    print(f'measure: wrote {PAGE.relative_to(ROOT)}')


if __name__ == '__main__':
    main()
