"""Long input: causal attention over 64k tokens, forward and backward, and what NumPy would need.

The articles name the price of attention: every token is compared with every other, and the table of
weights grows with the square of the length. The comparisons remain, but the table need not be
stored: each tile of scores is used and forgotten, and backward makes it again (Dao et al., 2022).

Each length is measured in a process of its own, whose peak of resident memory is that length's
alone. Plain NumPy is measured as far as its tables are small, and continued by its square. At the
full length, some rows and columns are computed again in float64, by the definition.
"""

import json
import subprocess
import sys
import time

import matplotlib.pyplot as plt
import numpy as np
import stage

import attnext

HEAD_DIM, CHECKED, MIB = 64, 24, 2**20


def draw_inputs(seqlen, heads):
    """The arrays q, k, v, dout, the same for every way."""
    random = np.random.default_rng(0)
    return random.standard_normal((4, heads, seqlen, HEAD_DIM), dtype=np.float32)


def by_attnext(q, k, v, dout):
    """out, lse and the gradients dq, dk, dv."""
    (out, lse), vjp = attnext.attention_vjp(q, k, v, causal=True, return_lse=True)
    return out, lse, *vjp(dout)[:3]


def by_numpy(*arrays):
    """The same as one writes it, a head at a time, with tables of seqlen x seqlen."""
    results = []
    scale = np.float32(HEAD_DIM**-0.5)
    for q, k, v, dout in zip(*arrays):
        s = q @ k.T
        s *= scale
        s[~np.tri(len(s), dtype=bool)] = -np.inf
        largest = s.max(axis=-1, keepdims=True)
        p = np.exp(s - largest, out=s)
        total = p.sum(axis=-1, keepdims=True)
        p /= total
        out = p @ v
        dv = p.T @ dout
        ds = dout @ v.T
        ds -= np.sum(dout * out, axis=-1, keepdims=True)
        ds *= p
        ds *= scale
        results.append((out, (largest + np.log(total))[:, 0], ds @ k, ds.T @ q, dv))
    return tuple(np.stack(part) for part in zip(*results))


WAYS = {"attnext": by_attnext, "numpy": by_numpy}


def error_by_definition(arrays, results):
    """How far some rows of out and dq, and columns' dk and dv, are from float64; relative."""
    q, k, v, dout = (array[0].astype(np.float64) for array in arrays)
    out, lse, dq, dk, dv = (result[0].astype(np.float64) for result in results)
    chosen = np.random.default_rng(1).choice(len(q), CHECKED, replace=False)
    places, scale, worst = np.arange(len(q)), HEAD_DIM**-0.5, 0.0
    delta = np.sum(dout * out, axis=-1)
    for i in chosen:
        s = scale * (k[: i + 1] @ q[i])
        p = np.exp(s - s.max())
        p /= p.sum()
        true_out = p @ v[: i + 1]
        ds = p * (v[: i + 1] @ dout[i] - dout[i] @ true_out) * scale
        p_column = np.exp(scale * (q[i:] @ k[i]) - lse[i:])  # key i, seen by all queries from i on
        ds_column = p_column * (dout[i:] @ v[i] - delta[places >= i]) * scale
        pairs = (
            (true_out, out[i]), (ds @ k[: i + 1], dq[i]),
            (ds_column @ q[i:], dk[i]), (p_column @ dout[i:], dv[i]),
        )  # fmt: skip
        worst = max(worst, *(np.abs(a - b).max() / np.abs(a).max() for a, b in pairs))
    return worst


def memory(field):
    """Bytes this process holds (VmRSS), or the most it ever held (VmHWM), as Linux says them."""
    with open("/proc/self/status", encoding="ascii") as status:
        return 1024 * next(int(line.split()[1]) for line in status if line.startswith(field))


def measure_here(way, seqlen, heads, is_checked):
    """Prints the seconds and bytes of one forward and backward, and its error if asked for."""
    arrays = draw_inputs(seqlen, heads)
    WAYS[way](*arrays[:, :, :256])  # threads and imports are not the cost
    before, begin = memory("VmRSS"), time.perf_counter()
    results = WAYS[way](*arrays)
    seconds, size = time.perf_counter() - begin, memory("VmHWM") - before
    error = error_by_definition(arrays, results) if is_checked else None
    print(json.dumps({"seconds": seconds, "bytes": size, "error": error}))


def measure(way, seqlen, heads, is_checked=False):
    """What `measure_here` prints, in a process of its own."""
    numbers = map(str, (seqlen, heads, int(is_checked)))
    command = [sys.executable, __file__, "--measure", way, *numbers]
    return json.loads(subprocess.check_output(command, text=True))


def span(seconds):
    """Seconds in words."""
    return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"


def storage(size):
    """Bytes in words."""
    return f"{size / 2**30:.3g} GiB" if size >= 2**30 else f"{size / MIB:.0f} MiB"


def draw(costs, longest, heads):
    """Time and memory over the length, both measured and continued."""
    figure, panels = plt.subplots(1, 2, figsize=(12, 5), layout="constrained")
    figure.suptitle(
        f"Causal attention, forward and backward: num_heads {heads}, head_dim {HEAD_DIM}, float32",
        x=0.01, ha="left", weight="bold",
    )  # fmt: skip
    looks = {"attnext": (stage.ACCENT, "attnext"), "numpy": (stage.SECOND, "plain NumPy")}
    shown = (("seconds", 1, span), ("bytes", MIB, storage))
    for axes, (field, unit, words) in zip(panels, shown):
        for way, (colour, name) in looks.items():
            lengths = np.array(sorted(costs[way]))
            values = np.array([costs[way][n][field] for n in lengths])
            axes.loglog(lengths, values / unit, "o-", color=colour, label=name)
            end = values[-1] * (longest / lengths[-1]) ** 2
            if way == "numpy":
                ends = [lengths[-1], longest], [values[-1] / unit, end / unit]
                name = "plain NumPy, continued by its square"
                axes.plot(*ends, "--o", mfc="white", color=colour, zorder=1, label=name)
            axes.annotate(
                words(end), (longest, end / unit), xytext=(0, 9), textcoords="offset points",
                ha="right", color=colour, weight="bold",
            )  # fmt: skip
        axes.set_xticks(lengths_of(longest), [f"{n // 1024}k" for n in lengths_of(longest)])
        axes.minorticks_off()
        axes.margins(0.08, 0.12)
        axes.set_xlabel("tokens")
        axes.grid(alpha=0.25)
    panels[0].set_title("seconds")
    panels[1].set_title("memory beyond the inputs, MiB")
    panels[0].legend(frameon=False, loc="upper left")
    return figure


def lengths_of(longest):
    """Doubling lengths from 1k on."""
    return [longest // 2**i for i in range(20) if longest // 2**i >= 1024][::-1]


def main():
    """Measure each length in each way, check the longest."""
    if sys.argv[1:2] == ["--measure"]:
        way, *numbers = sys.argv[2:]
        measure_here(way, *map(int, numbers))
        return 0
    setting = stage.begin(
        __doc__,
        tokens={"type": int, "help": "the longest input; default 65536, or 8192 if small"},
        heads={"type": int, "default": 1, "help": "how many heads of 64"},
    )
    longest = setting.options.tokens or (8192 if setting.is_small else 65536)
    heads, most = setting.options.heads, 2048 if setting.is_small else 8192
    tasks = [(way, n) for n in lengths_of(longest) for way in WAYS if way == "attnext" or n <= most]
    costs = {way: {} for way in WAYS}
    for way, n in stage.track(tasks, "measuring"):
        costs[way][n] = cost = measure(way, n, heads, is_checked=n == longest)
        found = f"{span(cost['seconds']):>8}  {storage(cost['bytes']):>9}"
        stage.say(f"{way:>8}  {n:>7,} tokens  {found}")
    ours, last = costs["attnext"][longest], max(costs["numpy"])
    growth, theirs = (longest / last) ** 2, costs["numpy"][last]
    inputs = 4 * heads * longest * HEAD_DIM * 4
    claims = [
        stage.Claim(
            f"largest relative difference from float64, {CHECKED} rows and columns of {longest:,}",
            ours["error"], at_most=3e-5, form=".1e",
        ),
        stage.Claim(
            "memory beyond the inputs, times the inputs",
            ours["bytes"] / inputs, at_most=2, form=".2f",
        ),
        stage.Claim("seconds, forward and backward", ours["seconds"], form=".1f"),
        stage.Claim("MiB beyond the inputs", ours["bytes"] / MIB, form=",.0f"),
        stage.Claim("NumPy's seconds, continued", growth * theirs["seconds"], form=".0f"),
        stage.Claim("NumPy's MiB, continued", growth * theirs["bytes"] / MIB, form=",.0f"),
    ]  # fmt: skip
    return stage.finish(setting, draw(costs, longest, heads), claims)


if __name__ == "__main__":
    raise SystemExit(main())
