"""The table that a run prints, and the arithmetic behind it."""

import math
import shutil
import statistics
import sys

WIDTHS = (39, 12, 12, 20, 10)
NOTE = '-'


class Table:
    """Rows are printed as soon as they are known."""

    def __init__(self):
        self.missed = []
        self.unmeasured = []
        self.color = sys.stdout.isatty()

    def head(self, title, left, right, third):
        print(f'\n{title}')
        self.line('', left, right, third, 'target', 'verdict')
        print('-' * min(104, shutil.get_terminal_size((104, 24)).columns))

    def line(self, name, left, right, third, target, verdict):
        cells = [name.ljust(WIDTHS[0]), left.rjust(WIDTHS[1]),
                 right.rjust(WIDTHS[2]), third.rjust(WIDTHS[3]),
                 target.rjust(WIDTHS[4])]
        print(' '.join(cells), '', verdict, flush=True)

    def row(self, name, left, right, third, target='', good=None):
        """One line; good: None without a target, else whether it held."""
        verdict = NOTE if good is None else 'ok' if good else 'MISS'

        if verdict == 'MISS':
            self.missed.append(name)
            if self.color:
                verdict = '\033[31mMISS\033[0m'

        self.line(name, left, right, third, target, verdict)

    def failed(self, name, why):
        self.unmeasured.append(name)
        print(f'{name}: not measured: {why}', flush=True)


def median(values):
    return statistics.median(values)


def spread(values, form):
    """Median with the range of the rounds behind it."""
    return (f'{format(median(values), form)} '
            f'({format(min(values), form)}..{format(max(values), form)})')


def number(value):
    """Four significant digits, at most two behind the point."""
    if value >= 1000:
        return f'{value:.0f}'

    return f'{value:.1f}' if value >= 100 else f'{value:.2f}'


def pairs(table, name, plain, ours, unit='', at_least=None, at_most=None):
    """A row from rounds that ran in pairs.

    The ratio is taken within each pair, so that a slow moment of the machine
    hits both sides; its median counts.
    """
    ratios = [b / a for a, b in zip(plain, ours) if a > 0] or [math.nan]
    ratio = median(ratios)
    target = good = None

    if at_least is not None:
        target, good = f'>= {at_least}', ratio >= at_least
    elif at_most is not None:
        target, good = f'<= {at_most}', ratio <= at_most

    table.row(name, number(median(plain)) + unit, number(median(ours)) + unit,
              spread(ratios, '.2f'), target or '', good)


def gaps(table, name, plain, ours, unit, at_most):
    """A row whose target is a difference."""
    differences = [b - a for a, b in zip(plain, ours)]

    table.row(name, number(median(plain)) + unit, number(median(ours)) + unit,
              spread(differences, '+.0f'), f'<= +{at_most}',
              median(differences) <= at_most)


def alone(table, name, ours, unit, at_most=None, plain=None):
    """A row whose target is a figure of ours."""
    table.row(name, number(median(plain)) + unit if plain else '',
              number(median(ours)) + unit, spread(ours, '.1f'),
              f'<= {at_most}{unit}' if at_most else '',
              median(ours) <= at_most if at_most else None)
