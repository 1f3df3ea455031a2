"""Metrics and baselines against closed forms, literal loops, other libraries and the field's own values."""

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ddfm import metrics
from ddfm._checks import DDFMError
from ddfm.bench import baselines
from ddfm.metrics.retention import connected_components

SHARED = Path(__file__).parents[2] / "shared/data"
GOLDEN = list(csv.DictReader((Path(__file__).parent / "golden/metrics.csv").read_text().splitlines()))
PAPER = ["EN", "SD", "SF", "AG", "MI", "CC", "SCD", "VIF", "Qabf", "SSIM", "MSE", "PSNR"]
WITHOUT_VIF = {
    "EN": lambda f, a, b: metrics.entropy(f),
    "SD": lambda f, a, b: metrics.standard_deviation(f),
    "SF": lambda f, a, b: metrics.spatial_frequency(f),
    "AG": lambda f, a, b: metrics.average_gradient(f),
    "MI": metrics.mutual_information,
    "CC": metrics.correlation,
    "SCD": metrics.scd,
    "Qabf": metrics.qabf,
    "SSIM": metrics.ssim,
    "MSE": metrics.mse,
    "PSNR": metrics.psnr,
}
needs_shared = [
    pytest.mark.shared,
    pytest.mark.skipif(not (SHARED / "pairs").is_dir(), reason="development data absent"),
]


def batch(array):
    """(H, W) or (B, H, W) array -> float64 tensor (B, 1, H, W)."""
    array = np.asarray(array, dtype=np.float64)
    return torch.from_numpy(array.reshape(-1, 1, *array.shape[-2:]).copy())


def noise(seed, height=48, width=56, low=0, high=256, count=1):
    return batch(np.random.default_rng(seed).integers(low, high, (count, height, width)))


def smooth_noise(seed, height=64, width=64):
    """Grey levels with structure at several scales, so that no local variance is trivial."""
    rng = np.random.default_rng(seed)
    out = np.zeros((height, width))
    for step in (1, 4, 16):
        coarse = rng.normal(size=(height // step + 1, width // step + 1))
        out += 20 * np.kron(coarse, np.ones((step, step)))[:height, :width]
    return batch(np.clip(np.round(out + 128), 0, 255))


# ---- the field's values -------------------------------------------------------------------------


def grey_pair(dataset, pair):
    folder = SHARED / "pairs" / dataset
    first = next(name for name in ("ir", "ct", "pet", "spect") if (folder / name).is_dir())
    second = next(name for name in ("vi", "mri") if (folder / name).is_dir())
    paths = (next((folder / name).glob(f"{pair}.*")) for name in (first, second))
    return [np.asarray(Image.open(path).convert("L"), dtype=np.float64) for path in paths]


def fuse_by_formula(method, a, b):
    if method == "average":
        return np.round((a + b) / 2)
    if method == "maximum":
        return np.maximum(a, b)
    return np.where(abs(a - a.mean()) > abs(b - b.mean()), a, b)


@pytest.mark.parametrize("row", GOLDEN, ids=lambda r: f"{r['dataset']}-{r['pair']}-{r['method']}")
class TestGolden:
    pytestmark = needs_shared

    def test_row(self, row):
        a, b = grey_pair(row["dataset"], row["pair"])
        images = [batch(x) for x in (fuse_by_formula(row["method"], a, b), a, b)]
        if row["method"] == "select":  # VIF, half of the time, on this third of the rows
            got = metrics.evaluate(*images, metrics=PAPER)
        else:
            got = {name: function(*images) for name, function in WITHOUT_VIF.items()}
        for name in got.keys() & set(PAPER):
            # The reference rounds to float32; SSIM loses most, its variances are differences.
            tolerance = 1e-4 if name == "SSIM" else 1e-6
            assert float(got[name]) == pytest.approx(float(row[name]), rel=tolerance), name


class TestPeerRows:
    pytestmark = needs_shared

    @pytest.mark.parametrize(
        ("peer", "fuse"),
        [
            ("average", baselines.average),
            ("max", baselines.maximum),
            ("copy_visible", baselines.copy_visible),
            ("laplacian", baselines.laplacian_pyramid),
        ],
    )
    def test_msrs_means(self, peer, fuse):
        """Printed to four digits, made elsewhere; the pyramid agrees up to the filter's rounding."""
        expected = json.loads((SHARED / "peer_rows_dev.json").read_text())["rows"]["msrs-dev"][peer]
        scores = []
        for path in sorted((SHARED / "pairs/msrs-dev/ir").iterdir()):
            a, b = (batch(x) for x in grey_pair("msrs-dev", path.stem))
            f = (fuse((a / 255).float(), (b / 255).float()) * 255).round()
            own = torch.cat([metrics.entropy(f), metrics.standard_deviation(f)])
            both = torch.cat([metrics.mutual_information(f, a, b), metrics.scd(f, a, b)])
            scores.append(torch.cat([own, both]))
        means = torch.stack(scores).mean(0).tolist()
        for name, mean in zip(("EN", "SD", "MI", "SCD"), means, strict=True):
            assert mean == pytest.approx(expected[name], abs=2e-4), name


# ---- statistics ---------------------------------------------------------------------------------


def test_entropy_of_a_constant_and_of_all_levels():
    assert metrics.entropy(torch.full((1, 1, 16, 16), 37.0)).item() == 0
    assert metrics.entropy(torch.arange(256.0).reshape(1, 1, 16, 16)).item() == pytest.approx(8, abs=1e-12)


def test_mutual_information_with_itself_is_twice_the_entropy_in_nats():
    f = noise(0)
    nats = metrics.entropy(f).item() * math.log(2)
    assert metrics.mutual_information(f, f, f).item() == pytest.approx(2 * nats, rel=1e-12)


def test_mutual_information_of_independent_images_is_zero():
    rows = batch(np.repeat(np.arange(16)[:, None], 16, axis=1))
    columns = rows.transpose(2, 3)  # every pair of levels once
    assert metrics.mutual_information(rows, columns, columns).item() == pytest.approx(0, abs=1e-12)


def test_ramp_has_known_sharpness_and_deviation():
    ramp = batch(np.tile(3.0 * np.arange(50), (40, 1)))
    assert metrics.spatial_frequency(ramp).item() == pytest.approx(3, rel=1e-12)
    assert metrics.average_gradient(ramp).item() == pytest.approx(3 / math.sqrt(2), rel=1e-12)
    expected = 3 * math.sqrt((50**2 - 1) / 12)  # population deviation of 0..49
    assert metrics.standard_deviation(ramp).item() == pytest.approx(expected, rel=1e-12)


def test_average_gradient_matches_numpy_up_to_the_border():
    image = noise(1)
    gy, gx = np.gradient(image[0, 0].numpy())
    expected = np.sqrt((gx**2 + gy**2) / 2).mean()
    assert metrics.average_gradient(image).item() == pytest.approx(expected, rel=1e-12)


def test_scd_and_correlation_of_orthogonal_patterns():
    """A and B uncorrelated, of equal variance: r(F - B, A) = 1 for the sum and 1/sqrt 2 for the mean."""
    a = batch(np.tile([[10.0, 30.0], [10.0, 30.0]], (8, 8)))
    b = a.transpose(2, 3)
    assert metrics.scd(a + b, a, b).item() == pytest.approx(2, rel=1e-12)
    assert metrics.scd((a + b) / 2, a, b).item() == pytest.approx(math.sqrt(2), rel=1e-12)
    assert metrics.correlation((a + b) / 2, a, b).item() == pytest.approx(1 / math.sqrt(2), rel=1e-12)
    assert metrics.scd(a, a, b).item() == pytest.approx(1 / math.sqrt(2), rel=1e-12)  # r(0, B) counts 0


def test_mse_and_psnr_use_the_mean_error_and_the_images_own_peak():
    f, a, b = (torch.full((1, 1, 8, 8), level) for level in (100.0, 90.0, 120.0))
    assert metrics.mse(f, a, b).item() == pytest.approx((100 + 400) / 2)
    assert metrics.psnr(f, a, b).item() == pytest.approx(10 * math.log10(100**2 / 250))
    assert metrics.psnr(f, f, f).item() == math.inf


# ---- SSIM, Qabf, VIF ----------------------------------------------------------------------------


def test_ssim_matches_scikit_image():
    reference = pytest.importorskip("skimage.metrics").structural_similarity
    f, a, b = smooth_noise(2), smooth_noise(3), noise(4, 64, 64)
    expected = sum(reference(f[0, 0].numpy(), s[0, 0].numpy(), data_range=2) for s in (a, b))
    assert metrics.ssim(f, a, b).item() == pytest.approx(expected, rel=1e-9)
    assert metrics.ssim(f, f, f).item() == pytest.approx(2, rel=1e-12)


def qabf_by_loop(f, a, b):
    """Xydeas-Petrovic pixel by pixel, quirk included; arrays (H, W)."""

    def edge(image, y, x):
        p = np.pad(image, 1)[y : y + 3, x : x + 3][::-1, ::-1]  # a convolution flips its kernel
        gx = (p * [[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]).sum()
        gy = (p * [[1, 2, 1], [0, 0, 0], [-1, -2, -1]]).sum()
        return math.hypot(gx, gy), math.pi / 2 if gx == 0 else math.atan(gy / gx)

    kept = weight = 0.0
    for y, x in np.ndindex(*f.shape):
        g_f, a_f = edge(f, y, x)
        for source in (a, b):
            g_s, a_s = edge(source, y, x)
            ratio = g_f if g_f == g_s else min(g_f, g_s) / max(g_f, g_s)
            angle = 1 - abs(a_s - a_f) / (math.pi / 2)
            strength = 0.9994 / (1 + math.exp(-15 * (ratio - 0.5)))
            kept += g_s * strength * 0.9879 / (1 + math.exp(-22 * (angle - 0.8)))
            weight += g_s
    return kept / weight


def test_qabf_matches_a_loop_over_pixels():
    rng = np.random.default_rng(5)
    a = rng.integers(0, 256, (12, 9)).astype(float)
    b = np.zeros((12, 9))
    b[3:9, 2:6] = 77  # flat areas and an upright edge
    f = np.where(np.arange(9) < 5, a, np.round((a + b) / 2))  # left half: equal gradients
    got = metrics.qabf(*(batch(x) for x in (f, a, b))).item()
    assert got == pytest.approx(qabf_by_loop(f, a, b), rel=1e-12)
    assert metrics.qabf(*[torch.zeros(1, 1, 9, 9)] * 3).item() == 0


def vif_literal(d, r):
    """Sheikh's vifp_mscale with full two-dimensional windows, (H, W) arrays."""
    convolve = pytest.importorskip("scipy.signal").convolve2d
    kept = total = 0.0
    for scale in range(4):
        size = 2 ** (4 - scale) + 1
        x = np.arange(size) - size // 2
        window = np.exp(-(x[:, None] ** 2 + x**2) / (2 * (size / 5) ** 2))
        window /= window.sum()
        if scale:
            r, d = (convolve(image, window, "valid")[::2, ::2] for image in (r, d))
        m_r, m_d, rr, dd, rd = (convolve(v, window, "valid") for v in (r, d, r * r, d * d, r * d))
        s_r, s_d, s_rd = np.maximum(rr - m_r**2, 0), np.maximum(dd - m_d**2, 0), rd - m_r * m_d
        g = s_rd / (s_r + 1e-10)
        s_v = s_d - g * s_rd
        g[s_r < 1e-10], s_v[s_r < 1e-10], s_r[s_r < 1e-10] = 0, s_d[s_r < 1e-10], 0
        g[s_d < 1e-10], s_v[s_d < 1e-10] = 0, 0
        s_v[g < 0], g[g < 0] = s_d[g < 0], 0
        kept += np.log10(1 + g * g * s_r / (np.maximum(s_v, 1e-10) + 2)).sum()
        total += np.log10(1 + s_r / 2).sum()
    return kept / total


def test_vif_matches_the_two_dimensional_windows():
    r, d = smooth_noise(6, 61, 70), smooth_noise(7, 61, 70)
    d[..., :20, :20] = 90  # flat in one, in the other, in both
    r[..., 10:40, :30] = 50
    expected = vif_literal(d[0, 0].numpy(), r[0, 0].numpy())
    assert metrics.vif_single(d, r).item() == pytest.approx(expected, rel=1e-9)


def test_vif_of_a_copy_is_one_and_of_faint_contrast_its_square():
    r = smooth_noise(8)
    assert metrics.vif(r, r, r).item() == pytest.approx(2, abs=1e-6)
    faint = 128 + (r - 128) / 1e4  # log(1 + s) = s: halving the contrast quarters the information
    assert metrics.vif_single(128 + (faint - 128) / 2, faint).item() == pytest.approx(0.25, rel=1e-3)
    pale = 128 + (r - 128) / 2
    assert metrics.vif_single(pale, r) < 1 < metrics.vif_single(r, pale)


# ---- the standard convention --------------------------------------------------------------------


def test_standard_convention_against_libraries():
    structural_similarity = pytest.importorskip("skimage.metrics").structural_similarity
    f, a, b = smooth_noise(2), smooth_noise(3), smooth_noise(4)
    got = metrics.evaluate(f, a, b, convention="standard", metrics="all")
    paper = metrics.evaluate(f, a, b, metrics="all")
    expected = np.mean([structural_similarity(f[0, 0].numpy(), s[0, 0].numpy(), data_range=255) for s in (a, b)])
    assert got["SSIM"].item() == pytest.approx(expected, rel=1e-9)
    assert got["VIF"].item() == pytest.approx(paper["VIF"].item() / 2)
    assert got["MI"].item() == pytest.approx(paper["MI"].item() / math.log(2))
    error = ((f - a).square().mean() + (f - b).square().mean()).item() / 2
    assert got["PSNR"].item() == pytest.approx(10 * math.log10(255**2 / error))
    unchanged = ("EN", "SD", "SF", "AG", "CC", "SCD", "MSE", "Nabf", "FMI", "VIF_A", "VIF_B", "minVIF")
    assert all(torch.equal(got[name], paper[name]) for name in unchanged)


def test_standard_qabf_of_a_copy_is_the_sigmoids_ceiling():
    """Where edges are equal the ratio is 1: gain / (1 + e^(slope (1 - centre))) of both; the quirk gives more."""
    f = smooth_noise(5)
    ceiling = 0.9994 / (1 + math.exp(-15 * 0.5)) * 0.9879 / (1 + math.exp(-22 * 0.2))
    assert metrics.qabf(f, f, f, convention="standard").item() == pytest.approx(ceiling, rel=1e-12)
    assert metrics.qabf(f, f, f).item() > ceiling


def test_an_unknown_convention_is_refused():
    f = smooth_noise(2)
    for function in (
        metrics.ssim,
        metrics.vif,
        metrics.mutual_information,
        metrics.qabf,
        metrics.psnr,
        metrics.ms_ssim,
    ):
        with pytest.raises(DDFMError, match="convention"):
            function(*[f.repeat(1, 1, 3, 3)] * 3, convention="papper")


# ---- MS-SSIM, Nabf, FMI -------------------------------------------------------------------------


def ms_ssim_literal(x, y):
    """Wang's five scales with full two-dimensional windows, (H, W) arrays."""
    convolve = pytest.importorskip("scipy.signal").convolve2d
    n = np.arange(-5, 6)
    window = np.exp(-(n[:, None] ** 2 + n**2) / (2 * 1.5**2))
    window /= window.sum()
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    value = 1.0
    for scale, power in enumerate((0.0448, 0.2856, 0.3001, 0.2363, 0.1333)):
        mx, my, xx, yy, xy = (convolve(v, window, "valid") for v in (x, y, x * x, y * y, x * y))
        structure = (2 * (xy - mx * my) + c2) / (xx - mx**2 + yy - my**2 + c2)
        luminance = (2 * mx * my + c1) / (mx**2 + my**2 + c1)
        value *= np.mean(structure * (luminance if scale == 4 else 1)) ** power
        x, y = (np.pad(v, [(0, size % 2) for size in v.shape], mode="edge") for v in (x, y))
        x, y = (v.reshape(v.shape[0] // 2, 2, -1, 2).mean((1, 3)) for v in (x, y))
    return value


def test_ms_ssim_matches_two_dimensional_windows():
    f, s = smooth_noise(30, 163, 190), smooth_noise(31, 163, 190)
    f = (0.6 * s + 0.4 * f).round()
    expected = ms_ssim_literal(f[0, 0].numpy(), s[0, 0].numpy())
    assert metrics.ms_ssim_single(f, s).item() == pytest.approx(expected, rel=1e-9)
    assert metrics.ms_ssim(s, s, s).item() == pytest.approx(2)
    assert metrics.ms_ssim(s, s, s, convention="standard").item() == pytest.approx(1)
    assert metrics.ms_ssim_single(255 - s, s).item() == 0  # a negative scale counts nothing


def test_ms_ssim_below_161_pixels_is_refused_alone_and_nan_in_the_table():
    small, enough = smooth_noise(32, 160, 200), smooth_noise(32, 161, 200)
    with pytest.raises(DDFMError, match="161 x 161 for MS-SSIM"):
        metrics.ms_ssim(small, small, small)
    assert metrics.evaluate(small, small, small, metrics=["MS-SSIM"])["MS-SSIM"].isnan().all()
    assert metrics.evaluate(enough, enough, enough, metrics=["MS-SSIM"])["MS-SSIM"].item() == pytest.approx(2)


def nabf_by_loop(f, a, b):
    """Petrovic's artefacts after Shreyamsha Kumar, pixel by pixel; arrays (H, W)."""

    def edge(image, y, x):
        p = np.pad(image, 1, mode="edge")[y : y + 3, x : x + 3]
        gx = (p * [[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]).sum() / 8
        gy = (p * [[-1, -2, -1], [0, 0, 0], [1, 2, 1]]).sum() / 8
        angle = 0 if gx == gy == 0 else math.pi / 2 if gx == 0 else math.atan(gy / gx)
        return math.hypot(gx, gy), angle

    lost = weights = 0.0
    for y, x in np.ndindex(*f.shape):
        g_f, a_f = edge(f, y, x)
        edges = [edge(source, y, x) for source in (a, b)]
        new = all(g_f > g_s for g_s, _ in edges)
        for g_s, a_s in edges:
            weight = g_s**1.5 if g_s >= 2 else 0.001
            ratio = 0 if g_s == 0 or g_f == 0 else min(g_s, g_f) / max(g_s, g_f)
            aligned = abs(abs(a_s - a_f) - math.pi / 2) * 2 / math.pi
            q_g = 0.9999 / (1 + math.exp(-19 * (ratio - 0.5)))
            q_a = 0.9995 / (1 + math.exp(-22 * (aligned - 0.5)))
            lost += new * (1 - math.sqrt(q_g * q_a)) * weight
            weights += weight
    return lost / weights


def test_nabf_matches_a_loop_over_pixels():
    a, b = (noise(seed, 13, 11)[0, 0].numpy() for seed in (33, 34))
    b[3:9] = 40  # flat: the least weight, and 0/0 in the ratio
    f = np.clip(1.5 * a - 20, 0, 255).round()
    assert metrics.nabf(*(batch(x) for x in (f, a, b))).item() == pytest.approx(nabf_by_loop(f, a, b), rel=1e-10)


def test_nabf_of_a_copy_is_nothing_and_of_added_noise_something():
    a, b = smooth_noise(35), smooth_noise(36)
    assert metrics.nabf(a, a, b).item() == 0
    flat = torch.full_like(a, 100)
    assert metrics.nabf(noise(37, 64, 64), flat, flat).item() > 0.5


def fmi_of_window(x, y):
    """One 3x3 window as the publication has it: Nelsen's joint distribution in explicit loops."""
    if (x == y).all():
        return 1.0
    p, q = ((w - w.min()) / (w.max() - w.min()) if w.max() > w.min() else np.ones(9) for w in (x, y))
    p, q = p / p.sum(), q / q.sum()
    cov = ((p - p.mean()) * (q - q.mean())).sum()
    c = 0 if cov == 0 else cov / math.sqrt(((p - p.mean()) ** 2).sum() * ((q - q.mean()) ** 2).sum())
    place = np.arange(1, 10)
    spread = [math.sqrt((w * place**2).sum() - (w * place).sum() ** 2) for w in (p, q)]

    def bound(i, j):
        if i < 0 or j < 0:
            return 0.0
        u, v = p[: i + 1].sum(), q[: j + 1].sum()
        return min(u, v) if c >= 0 else max(u + v - 1, 0)

    area = sum(bound(i, j) - p[: i + 1].sum() * q[: j + 1].sum() for i in range(9) for j in range(9))
    share = 0 if c == 0 or 0 in spread else c / (area / (spread[0] * spread[1]))
    joint = 0.0
    for i, j in np.ndindex(9, 9):
        density = bound(i, j) - bound(i - 1, j) - bound(i, j - 1) + bound(i - 1, j - 1)
        h = share * density + (1 - share) * p[i] * q[j]
        joint -= h * math.log2(abs(h)) if h else 0
    h_p, h_q = (-(w[w > 0] * np.log2(w[w > 0])).sum() for w in (p, q))
    return 2 * (h_p + h_q - joint) / (h_p + h_q)


def test_fmi_matches_explicit_loops():
    f, a = (noise(seed, 7, 8, 0, 9)[0, 0].numpy() for seed in (38, 39))
    f[:3, :3] = a[:3, :3]  # an equal window
    a[4:, 4:] = 5  # flat ones
    windows = [(y, x) for y in range(5) for x in range(6)]
    expected = np.mean([fmi_of_window(*(im[y : y + 3, x : x + 3].T.ravel() for im in (f, a))) for y, x in windows])
    assert metrics.fmi_single(batch(f), batch(a)).item() == pytest.approx(expected, rel=1e-9)


def test_fmi_of_copies_and_of_gradients():
    a, b = smooth_noise(40), smooth_noise(41)
    assert metrics.fmi_single(a, a).item() == 1
    assert 0 < metrics.fmi(a, a, b).item() < 1
    assert metrics.fmi(a + 0, a, a, feature="gradient").item() == 1
    ramp = batch(np.tile(np.arange(64.0), (64, 1)))
    assert metrics.fmi_single(a + 0 * ramp, a, feature="gradient").item() == 1
    with pytest.raises(DDFMError, match="feature"):
        metrics.fmi(a, a, b, feature="wavelet")


# ---- the table ----------------------------------------------------------------------------------


def test_per_source_values_and_their_minimum():
    f, a, b = smooth_noise(42), smooth_noise(43), smooth_noise(44)
    got = metrics.evaluate(f, a, b, metrics="all")
    for name in ("VIF", "SSIM", "MI"):
        parts = got[f"{name}_A"], got[f"{name}_B"]
        assert got[name].item() == pytest.approx(sum(parts).item())
        assert got[f"min{name}"].item() == min(parts).item()
    copy = metrics.evaluate(a, a, b, metrics="all")
    assert copy["VIF_A"].item() == pytest.approx(1, abs=1e-6)
    assert copy["minVIF"].item() < 0.1


@pytest.mark.parametrize("convention", ["paper", "standard"])
def test_values_lie_in_the_ranges_of_the_table(convention):
    cases = [
        tuple(smooth_noise(seed, 170, 170) for seed in (45, 46, 47)),
        tuple(noise(seed, 170, 170, 0, 2) * 255 for seed in (48, 49, 50)),  # black and white: the extremes
        (smooth_noise(45, 170, 170),) * 3,
    ]
    for f, a, b in cases:
        for name, value in metrics.evaluate(f, a, b, convention=convention, metrics="all").items():
            metric = metrics.METRICS[name]
            low, high = metric.range if convention == "paper" else metric.standard_range
            if not value.isnan():
                assert low - 1e-9 <= value.item() <= high * (1 + 1e-9), name


def test_constant_images_have_defined_values():
    flat = torch.full((1, 1, 170, 170), 80.0)
    values = metrics.evaluate(flat, flat, flat, metrics="all")
    undefined = {name for name, value in values.items() if value.isnan()}
    assert undefined == {"hot", "texture", "minRetention"}


def test_names_of_metrics():
    assert metrics.parse_names("six,SCD,EN") == (*metrics.SIX, "SCD")
    assert metrics.parse_names("all") == tuple(metrics.METRICS)
    with pytest.raises(DDFMError, match="Did you mean 'Qabf'"):
        metrics.parse_names("QABF")


def test_torchmetrics_classes_give_the_means():
    pytest.importorskip("torchmetrics")
    from ddfm.metrics.modules import FusionMetric, FusionScores

    f, a, b = (smooth_noise(seed) for seed in (51, 52, 53))
    flat = torch.full_like(a, 9)
    scores = FusionScores(["VIF", "hot"], convention="standard")
    scores.update(f, a, b)
    scores.update(torch.cat([a, f]), torch.cat([a, flat]), torch.cat([b, b]))
    values = [metrics.evaluate(*x, convention="standard") for x in ((f, a, b), (a, a, b), (f, flat, b))]
    got = scores.compute()
    assert got["VIF"].item() == pytest.approx(np.mean([v["VIF"].item() for v in values]))
    assert values[2]["hot"].isnan()
    assert got["hot"].item() == pytest.approx(np.mean([v["hot"].item() for v in values[:2]]))
    single = FusionMetric("SCD")
    with pytest.warns(UserWarning, match="before the ``update``"):
        assert single.compute().isnan()
    single.reset()
    single.update(f, a, b)
    assert single.compute().item() == pytest.approx(metrics.scd(f, a, b).item())
    single.reset()
    assert single.count.item() == 0


# ---- retention ----------------------------------------------------------------------------------


def scene():
    """Infrared with two warm 12 x 12 squares (2.9 % of the pixels), visible with texture, (H, W)."""
    infrared = np.full((100, 100), 40.0)
    infrared[20:32, 20:32] = infrared[88:, 70:82] = 200  # the second at the border
    visible = np.random.default_rng(9).integers(60, 160, (100, 100)).astype(float)
    return infrared, visible


def test_copies_keep_their_own_and_lose_the_other():
    infrared, visible = (batch(x) for x in scene())
    kept = metrics.evaluate(infrared, infrared, visible)
    assert kept["hot"].item() == pytest.approx(1, rel=1e-12)
    assert kept["texture"].item() == kept["minRetention"].item() < 0.1
    lost = metrics.evaluate(visible, infrared, visible)
    assert lost["texture"].item() == pytest.approx(1, rel=1e-12)
    assert lost["hot"].item() == lost["minRetention"].item() < 0.1


def test_hot_retention_is_the_share_of_contrast():
    infrared, _ = scene()
    assert metrics.hot_retention(batch(infrared / 2 + 60), batch(infrared)).item() == pytest.approx(0.5)
    assert metrics.hot_retention(batch(255 - infrared), batch(infrared)).item() == 0  # inverted: clipped
    one_lost = infrared.copy()
    one_lost[20:32, 20:32] = 40
    assert metrics.hot_retention(batch(one_lost), batch(infrared)).item() == pytest.approx(0.5)


def test_hot_surround_lies_between_3_and_15_pixels():
    infrared, _ = scene()
    fused = np.full_like(infrared, 255.0)  # wrong everywhere except on targets and surrounds
    for y, x in ((20, 20), (88, 70)):
        fused[max(y - 15, 0) : y + 27, x - 15 : x + 27] = 40
        fused[y - 3 : y + 15, x - 3 : x + 15] = 255
        fused[y : y + 12, x : x + 12] = 200
    assert metrics.hot_retention(batch(fused), batch(infrared)).item() == pytest.approx(1, rel=1e-12)


def test_hot_targets_below_nine_pixels_do_not_count():
    infrared, _ = scene()
    infrared[60, 10:18] = 200
    fused = infrared.copy()
    fused[60, 10:18] = 40
    assert metrics.hot_retention(batch(fused), batch(infrared)).item() == pytest.approx(1, rel=1e-12)
    infrared[60, 18] = 200  # the ninth
    assert metrics.hot_retention(batch(fused), batch(infrared)).item() == pytest.approx(2 / 3)


def test_without_targets_or_texture_the_value_is_nan():
    _, visible = (batch(x) for x in scene())
    flat = torch.full_like(visible, 80)
    assert metrics.hot_retention(visible, flat).isnan().all()
    assert metrics.texture_retention(visible, flat).isnan().all()
    assert metrics.texture_retention(flat, visible).item() == 0
    assert metrics.evaluate(visible, flat, visible)["minRetention"].isnan().all()  # one half proves nothing


def test_texture_retention_ignores_brightness_and_contrast():
    _, visible = (batch(x) for x in scene())
    assert metrics.texture_retention(visible / 2 + 70, visible).item() == pytest.approx(1, rel=1e-12)


@pytest.mark.parametrize("density", [0.0, 0.2, 0.4, 0.6, 1.0])
def test_connected_components_match_scipy(density):
    label = pytest.importorskip("scipy.ndimage").label
    for seed in range(5):
        mask = np.random.default_rng(seed).random((23, 31)) < density
        expected, count = label(mask, structure=np.ones((3, 3)))
        got, got_count = connected_components(mask)
        assert got_count == count
        assert np.array_equal(got, expected)  # both number in reading order


# ---- all together -------------------------------------------------------------------------------


def test_batch_equals_images_one_by_one():
    f, a, b = (noise(seed, 60, 52, count=3) for seed in (10, 11, 12))
    a[1, :, 10:30, 10:30] = 255  # images of the batch differ in kind too
    b[2] = 90
    together = metrics.evaluate(f, a, b)
    for i in range(3):
        alone = metrics.evaluate(*(x[i : i + 1] for x in (f, a, b)))
        for name, value in alone.items():
            assert together[name].shape == (3,)
            torch.testing.assert_close(together[name][i : i + 1], value, rtol=1e-12, atol=1e-12, equal_nan=True)


def test_evaluate_rounds_and_takes_any_dtype():
    f, a, b = (noise(seed, 48, 48, 1, 255) for seed in (13, 14, 15))
    a[..., 5:20, 5:20] = 255  # a hot target
    whole = metrics.evaluate(f, a, b)
    shifted = metrics.evaluate(f.float() + 0.4, a.float() - 0.4, b.to(torch.uint8))
    assert tuple(whole) == metrics.DEFAULT
    for name, value in whole.items():
        assert torch.equal(value, shifted[name]), name


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda f, a, b: (f / 255, a / 255, b / 255), "Multiply by 255"),
        (lambda f, a, b: (f, a, b + 200), r"visible: got values in"),
        (lambda f, a, b: (f, a[..., 1:], b), "infrared: got shape"),
        (lambda f, a, b: (f * math.nan, a, b), "fused: got NaN"),
        (lambda f, a, b: (f.expand(1, 3, 48, 56), a, b), "3 channels"),
        (lambda f, a, b: (f[..., :40], a[..., :40], b[..., :40]), "41 x 41 for VIF"),
    ],
)
def test_evaluate_refuses_and_says_why(change, says):
    with pytest.raises(DDFMError, match=says):
        metrics.evaluate(*change(noise(16), noise(17), noise(18)))


def test_smallest_sizes():
    f, a, b = (noise(seed, 41, 41) for seed in (19, 20, 21))
    a[..., 5:20, 5:20] = 255
    assert all(value.isfinite().all() for value in metrics.evaluate(f, a, b).values())
    small = [x[..., :6] for x in (f, a, b)]
    with pytest.raises(DDFMError, match="7 x 7 for SSIM"):
        metrics.ssim(*small)


# ---- baselines ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_average_of_8_bit_levels_is_exact(dtype):
    """All 65536 pairs: halves must survive the way to [0, 1] and back, or rounding goes astray."""
    levels = torch.arange(256, dtype=dtype)
    a, b = levels.expand(1, 1, 256, 256), levels[:, None].expand(1, 1, 256, 256)
    fused = (baselines.average(a / 255, b / 255) * 255).round()
    expected = np.round((a.numpy() + b.numpy()) / 2)
    assert np.array_equal(fused.numpy(), expected)


def test_maximum_and_copies():
    a, b = noise(22) / 255, noise(23) / 255
    assert np.array_equal(baselines.maximum(a, b).numpy(), np.maximum(a.numpy(), b.numpy()))
    assert torch.equal(baselines.copy_infrared(a, b), a)
    assert torch.equal(baselines.copy_visible(a, b), b)


@pytest.mark.parametrize("size", [(1, 1), (3, 50), (5, 7), (33, 47), (64, 64)])
def test_laplacian_pyramid_reconstructs_equal_sources(size):
    x = noise(24, *size, count=2).float() / 255
    torch.testing.assert_close(baselines.laplacian_pyramid(x, x), x, rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [(33, 47), (64, 50)])
def test_laplacian_pyramid_takes_the_stronger_detail_and_the_mean_base(size):
    """The filter removes a checkerboard entirely: it is all detail, and its base is its mean."""
    y, x = np.indices(size)
    board = batch(0.2 * (-1.0) ** (y + x))
    flat = torch.full_like(board, 0.3)
    expected = 0.4 + board
    for pair in ((flat, 0.5 + board), (0.5 + board, flat), (0.3 - board / 2, 0.5 + board)):
        torch.testing.assert_close(baselines.laplacian_pyramid(*pair), expected, rtol=0, atol=1e-12)


def test_laplacian_pyramid_without_levels_is_the_mean():
    a, b = noise(25) / 255, noise(26) / 255
    torch.testing.assert_close(baselines.laplacian_pyramid(a, b, levels=0), (a + b) / 2)


def test_baselines_refuse_other_ranges_and_shapes():
    a = torch.rand(1, 1, 8, 8)
    with pytest.raises(DDFMError, match=r"infrared: got values in .*\[0, 1\]"):
        baselines.average(a * 255, a)
    with pytest.raises(DDFMError, match="visible: got shape"):
        baselines.maximum(a, a[..., 1:])
