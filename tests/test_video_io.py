"""Clips in and out: every time stamp, every colour, every turn, and what is left behind when it goes wrong."""

import errno
import itertools
import math
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddfm._checks import DDFMError
from ddfm.io.audio import AudioTrack
from ddfm.io.video import is_video, open_clips
from ddfm.io.video_writer import ClipWriter, Encoding

av = pytest.importorskip("av")
RNG = np.random.default_rng(0)
SOFT = np.kron(RNG.integers(30, 220, (6, 8, 3)), np.ones((8, 8, 1))).astype(np.uint8)  # 48x64, even patches


def moving(count, picture=SOFT):
    return [np.roll(picture, 3 * k, axis=1) for k in range(count)]


def read(path, fps=None):
    (clip,) = open_clips([Path(path)], fps)
    return clip, list(clip.frames())


def levels(frame):
    """Samples as an encoder took them."""
    return np.rint(frame.image.data * (2**frame.image.bit_depth - 1)).astype(int)


def write(path, pictures, *, times=None, audio=None, fail=None, **options):
    """With the package's writer: pictures in [0, 1], 25 a second unless ``times`` are given."""
    settings = {"size": pictures[0].shape[:2], "rate": Fraction(25), "time_base": Fraction(1, 12800)}
    settings |= {"color": pictures[0].ndim == 3} | options
    with ClipWriter(Path(path), audio=audio, **settings) as writer:
        for k, picture in enumerate(pictures):
            if k == fail:
                raise KeyboardInterrupt
            writer.write(picture, times[k] if times else Fraction(k, 25), Fraction(1, 25))
    return writer


def leftovers(folder):
    return [path.name for path in folder.iterdir() if path.suffix == ".part"]


# ---- reading --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "dtype", "depth"), [((48, 64), np.uint8, 8), ((48, 64, 3), np.uint8, 8), ((48, 64), np.uint16, 16)]
)
def test_lossless_samples_arrive_as_they_are(tmp_path, make_clip, shape, dtype, depth):
    frames = [RNG.integers(0, np.iinfo(dtype).max, shape, dtype=dtype) for _ in range(3)]
    clip, found = read(make_clip(tmp_path / "a.mkv", frames))
    assert (clip.info.bit_depth, clip.info.is_color, clip.info.size) == (depth, len(shape) == 3, (48, 64))
    for frame, sent in zip(found, frames, strict=True):
        assert np.array_equal(levels(frame), sent)


def test_time_stamps_of_a_variable_rate_are_exact(tmp_path, make_clip):
    stamps = [0, 500, 1100, 2000, 2400, 3777, 9000]
    path = make_clip(
        tmp_path / "a.mp4", moving(7), codec="libx264", pixels="yuv420p", stamps=stamps, base=Fraction(1, 12800)
    )
    clip, found = read(path)
    assert [frame.time for frame in found] == [Fraction(s, 12800) for s in stamps]
    assert clip.info.frames == 7 and clip.info.breaks_off is None


def test_a_clip_that_begins_late_begins_at_zero(tmp_path, make_clip):
    stamps = [90_000 + 40 * k for k in range(8)]  # a minute and a half, as broadcasts do
    path = make_clip(tmp_path / "a.ts", moving(8), codec="libx264", pixels="yuv420p", stamps=stamps)
    with av.open(str(path)) as file:
        assert file.start_time > 80_000_000
    _, found = read(path)
    assert [float(f.time) for f in found] == pytest.approx([k / 25 for k in range(8)], abs=1e-4)


@pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".ts"])
def test_a_whole_clip_that_begins_late_does_not_break_off_and_half_of_it_does(tmp_path, make_clip, suffix):
    """Matroska's Duration counts from time 0 on, MP4's from the first frame; a transport stream announces none."""
    noise = [RNG.integers(0, 255, (48, 64, 3), dtype=np.uint8) for _ in range(50)]
    options = {"codec": "libx264", "pixels": "yuv420p", "stamps": [10_000 + 40 * k for k in range(50)]}
    path = make_clip(tmp_path / f"a{suffix}", noise, **options)
    clip, found = read(path)
    assert (clip.info.breaks_off, float(clip.info.end), found[0].time) == (None, pytest.approx(2, abs=0.05), 0)
    if suffix == ".mkv":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        assert 0.5 < float(open_clips([path])[0].info.breaks_off) < 1.4


def expected_rgb(y, cb, cr, red, blue):
    """RGB of studio-range samples, from luma coefficients alone (ITU-R BT.601 and BT.709, item 3)."""
    luma, b, r = (y - 16) / 219, (cb - 128) / 224 * 2 * (1 - blue), (cr - 128) / 224 * 2 * (1 - red)
    return np.array([luma + r, luma - (red * r + blue * b) / (1 - red - blue), luma + b])


@pytest.mark.parametrize(
    ("height", "tag", "red", "blue"),
    [
        (48, None, 0.299, 0.114),  # untagged and small: BT.601
        (720, None, 0.2126, 0.0722),  # untagged and large: BT.709
        (48, 1, 0.2126, 0.0722),  # as tagged
        (720, 6, 0.299, 0.114),
    ],
)
def test_the_colour_matrix_is_the_one_named(tmp_path, height, tag, red, blue):
    samples = (120, 90, 190)
    with av.open(str(tmp_path / "a.mkv"), "w") as file:
        stream = file.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, height, "yuv444p"
        if tag:
            stream.codec_context.colorspace = tag
        frame = av.VideoFrame.from_ndarray(
            np.full((3, height, 64), np.reshape(samples, (3, 1, 1)), np.uint8), "yuv444p"
        )
        frame.pts = 0
        file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    _, (found,) = read(tmp_path / "a.mkv")
    # a level for the rounding of the file, another for swscale's fixed point
    assert np.abs(found.image.data[5, 5] - expected_rgb(*samples, red, blue)).max() < 2 / 255


def test_grey_in_studio_range_is_stretched(tmp_path):
    with av.open(str(tmp_path / "a.mkv"), "w") as file:
        stream = file.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "gray"
        stream.codec_context.color_range = 1
        ramp = np.tile(np.linspace(16, 235, 64).round().astype(np.uint8), (48, 1))
        frame = av.VideoFrame.from_ndarray(ramp, "gray")
        frame.pts, frame.color_range = 0, 1
        file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    _, (found,) = read(tmp_path / "a.mkv")
    assert found.image.data == pytest.approx((ramp - 16.0) / 219, abs=0.51 / 255)


def turned(path, matrix):
    """Write a display matrix (a, b, c, d) into the track header of an MP4 (ISO 14496-12, 8.3.2)."""
    raw = bytearray(path.read_bytes())
    at = raw.index(b"tkhd") + 4 + 40  # version 0: the matrix follows 40 bytes of other fields
    values = (matrix[0], matrix[1], 0, matrix[2], matrix[3], 0)
    for k, value in enumerate(values):
        raw[at + 4 * k : at + 4 * k + 4] = (value * 65536).to_bytes(4, "big", signed=True)
    path.write_bytes(raw)
    return path


@pytest.mark.parametrize(
    ("matrix", "turn"),
    [
        ((1, 0, 0, 1), lambda x: x),
        ((0, 1, -1, 0), lambda x: np.rot90(x, -1)),  # clockwise, as phones held upright write
        ((0, -1, 1, 0), np.rot90),
        ((-1, 0, 0, -1), lambda x: np.rot90(x, 2)),
        ((-1, 0, 0, 1), lambda x: x[:, ::-1]),
    ],
)
def test_the_display_matrix_is_applied(tmp_path, make_clip, matrix, turn):
    path = make_clip(tmp_path / "a.mp4", moving(2), codec="libx264", pixels="yuv444p", options={"qp": "0"})
    plain = read(path)[1][0].image.data
    clip, found = read(turned(path, matrix))
    assert np.array_equal(found[0].image.data, turn(plain))
    assert clip.info.size == turn(plain).shape[:2]
    assert ("upright" in " ".join(clip.notes())) == (matrix != (1, 0, 0, 1))


def test_the_shape_of_pixels_turns_with_the_picture(tmp_path):
    picture = SOFT / 255.0
    write(tmp_path / "a.mp4", [picture] * 2, pixel_aspect=Fraction(4, 3))
    assert read(tmp_path / "a.mp4")[0].info.pixel_aspect == Fraction(4, 3)
    assert read(turned(tmp_path / "a.mp4", (0, 1, -1, 0)))[0].info.pixel_aspect == Fraction(3, 4)


# ---- what cannot be read ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "an empty file"), (b"no video " * 99, "cannot be read"), (b"\0\0\0\x18ftypmp42" * 9, "")],
)
def test_no_video(tmp_path, content, words):
    (tmp_path / "a.mp4").write_bytes(content)
    with pytest.raises(DDFMError, match=f"a.mp4: got .*{words}"):
        read(tmp_path / "a.mp4")


def test_audio_alone_and_a_video_without_frames(tmp_path, make_clip):
    with av.open(str(tmp_path / "a.m4a"), "w", format="mp4") as file:
        sound = file.add_stream("aac", rate=44100, layout="mono")
        block = av.AudioFrame.from_ndarray(np.zeros((1, 4410), np.float32), format="fltp", layout="mono")
        block.rate = 44100
        file.mux(sound.encode(block))
        file.mux(sound.encode(None))
    with pytest.raises(DDFMError, match="got a file of audio, expected a file with a video stream"):
        read(tmp_path / "a.m4a")
    path = make_clip(tmp_path / "b.ts", moving(30), codec="libx264", pixels="yuv420p")
    path.write_bytes(path.read_bytes()[: 4 * 188])  # the header and not a frame
    with pytest.raises(DDFMError, match=r"b\.ts: got .*(single frame|cannot be read|no streams)"):
        read(path)


def long_clip(make_clip, path):
    rng = np.random.default_rng(1)
    frames = [rng.integers(0, 256, (48, 64, 3), dtype=np.uint8) for _ in range(50)]
    return make_clip(path, frames, codec="libx264", pixels="yuv420p", options={"g": "10", "movflags": "+faststart"})


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_a_file_that_breaks_off_is_known_before_it_is_read(tmp_path, make_clip, suffix, recwarn):
    path = long_clip(make_clip, tmp_path / f"a{suffix}")
    if suffix == ".mp4":  # its index first, or nothing of it can be read
        whole = path.read_bytes()
        with (
            av.open(str(path)) as source,
            av.open(str(tmp_path / "b.mp4"), "w", options={"movflags": "+faststart"}) as to,
        ):
            stream = to.add_stream_from_template(source.streams.video[0])
            for packet in source.demux(video=0):
                if packet.dts is not None:
                    packet.stream = stream
                    to.mux(packet)
        path = tmp_path / "b.mp4"
    whole = path.read_bytes()
    assert read(path)[0].info.breaks_off is None
    path.write_bytes(whole[: len(whole) * 6 // 10])
    clip, found = read(path)
    assert 0.5 < float(clip.info.breaks_off) < 1.5  # of 2 s
    assert 15 < len(found) < 40


def test_damage_is_counted(tmp_path, make_clip):
    path = long_clip(make_clip, tmp_path / "a.mkv")
    raw = bytearray(path.read_bytes())
    middle = len(raw) // 2
    raw[middle : middle + 2000] = bytes(2000)
    path.write_bytes(raw)
    clip, found = read(path)
    assert len(found) > 30
    assert "damaged frames" in " ".join(clip.notes())


def test_a_size_that_changes_is_refused_where_it_does(tmp_path, make_clip):
    parts = [
        make_clip(
            tmp_path / f"{k}.ts",
            [np.zeros(shape, np.uint8)] * 10,
            codec="mpeg2video",
            pixels="yuv420p",
            base=Fraction(1, 25),
        )
        for k, shape in enumerate(((48, 64, 3), (64, 80, 3)))
    ]
    (tmp_path / "a.ts").write_bytes(b"".join(part.read_bytes() for part in parts))
    (clip,) = open_clips([tmp_path / "a.ts"])
    found = []
    with pytest.raises(DDFMError, match=r"a\.ts at \S+ s: got 80x64 pixels, expected 64x48"):
        for frame in clip.frames():
            found.append(frame)
    assert len(found) >= 9  # what came before is there


def test_without_pyav_the_extra_is_named(tmp_path, make_clip, monkeypatch):
    path = make_clip(tmp_path / "a.mkv", moving(2))
    monkeypatch.setitem(sys.modules, "av", None)
    assert is_video(path)
    with pytest.raises(DDFMError, match=r"pip install 'ddfm\[video\]'"):
        open_clips([path])


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov", ".webm", ".avi", ".ts", ".flv", ".mpg"])
def test_a_video_is_known_by_its_content(tmp_path, make_clip, suffix):
    codec = {".webm": "libvpx-vp9", ".avi": "mpeg4", ".flv": "flv", ".mpg": "mpeg2video"}.get(suffix, "libx264")
    base = Fraction(1, 25) if suffix in (".avi", ".mpg") else None
    make_clip(tmp_path / f"a{suffix}", moving(5), codec=codec, pixels="yuv420p", base=base)
    (tmp_path / f"a{suffix}").rename(tmp_path / "a.png")
    assert is_video(tmp_path / "a.png")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "BMP", "WEBP", "GIF"])
def test_a_picture_is_none_whatever_its_name(tmp_path, kind):
    Image.fromarray(SOFT).save(tmp_path / "a.mp4", kind)
    assert not is_video(tmp_path / "a.mp4")


def test_neither_folders_nor_nothing_are_videos(tmp_path):
    assert not is_video(tmp_path) and not is_video(tmp_path / "none.mp4")


# ---- folders of frames -----------------------------------------------------------------------------


def folder(path, names, shape=(20, 24)):
    path.mkdir()
    for k, name in enumerate(names):
        Image.fromarray(np.full(shape, 10 * k, np.uint8)).save(path / f"{name}.png")
    return path


def times(*folders, fps=10):
    return [[float(f.time) * fps for f in clip.frames()] for clip in open_clips(folders, Fraction(fps))]


def test_frames_of_a_folder_come_in_the_order_of_their_numbers(tmp_path):
    path = folder(tmp_path / "a", ["f1", "f10", "f2"])  # grey 0, 10, 20
    (clip,) = open_clips([path], Fraction(25))
    assert [round(255 * f.image.data.mean()) for f in clip.frames()] == [0, 20, 10]


@pytest.mark.parametrize(
    ("names", "places"),
    [
        (["f1", "f2", "f4"], [0, 1, 3]),  # a frame is missing
        (["f000", "f010", "f020", "f040"], [0, 1, 2, 4]),  # every tenth was kept
        (["a", "b", "c"], [0, 1, 2]),
        (["t1699999990", "t1699999991", "t1700012345"], [0, 1, 2]),  # times, not counts
        (["1_a", "1_b"], [0, 1]),
    ],
)
def test_numbers_give_the_place_in_time(tmp_path, names, places):
    assert times(folder(tmp_path / "a", names)) == [places]


def test_folders_that_share_names_share_their_beginning(tmp_path):
    a, b = folder(tmp_path / "a", ["f2", "f3", "f4"]), folder(tmp_path / "b", ["f1", "f2", "f3"])
    assert times(a, b) == [[1, 2, 3], [0, 1, 2]]
    c, d = folder(tmp_path / "c", ["ir7", "ir8"]), folder(tmp_path / "d", ["vis1", "vis2"])
    assert times(c, d) == [[0, 1], [0, 1]]
    e, f = folder(tmp_path / "e", ["x", "z"]), folder(tmp_path / "f", ["x", "y", "z"])
    assert times(e, f) == [[0, 2], [0, 1, 2]]


def test_a_folder_needs_a_rate_frames_and_one_size(tmp_path):
    path = folder(tmp_path / "a", ["1", "2"])
    with pytest.raises(DDFMError, match="--fps 25"):
        open_clips([path])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DDFMError, match="without pictures"):
        open_clips([tmp_path / "empty"], Fraction(25))
    Image.fromarray(np.zeros((30, 24), np.uint8)).save(path / "3.png")
    (clip,) = open_clips([path], Fraction(25))
    with pytest.raises(DDFMError, match=r"3\.png: got 24x30 pixels, expected 24x20"):
        list(clip.frames())


# ---- writing ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".webm"])
@pytest.mark.parametrize("size", [(48, 64), (47, 63)])
def test_a_round_trip_keeps_size_times_and_pictures(tmp_path, suffix, size):
    smooth = np.stack(np.broadcast_arrays(*np.ogrid[0 : 1 : size[0] * 1j, 0 : 1 : size[1] * 1j], 0.4), axis=-1)
    stamps = [Fraction(k * k + k, 100) for k in range(6)]
    writer = write(tmp_path / f"a{suffix}", [smooth.astype(np.float32)] * 6, times=stamps, encoding=Encoding(crf=4))
    clip, found = read(tmp_path / f"a{suffix}")
    assert clip.info.size == size
    assert [f.time for f in found] == stamps
    # chroma of half resolution, 8 bits and a good quality: some levels at the corners, half a level on average
    assert np.abs(found[3].image.data - smooth).mean() < 1.5 / 255
    assert bool(writer.notes) == (size == (47, 63) and suffix != ".webm")


def test_colours_are_tagged_and_come_back(tmp_path):
    patch = np.zeros((48, 64, 3), np.float32) + np.array((0.8, 0.2, 0.3), np.float32)
    for height in (48, 720):
        picture = np.resize(patch, (height, 64, 3))
        write(tmp_path / "a.mp4", [picture] * 2, overwrite=True, encoding=Encoding(crf=1, primaries=1, transfer=13))
        with av.open(str(tmp_path / "a.mp4")) as file:
            frame = next(file.decode(video=0))
            tags = frame.colorspace, frame.color_range, frame.color_primaries, frame.color_trc
        assert tags == (1 if height == 720 else 6, 1, 1, 13)
        _, found = read(tmp_path / "a.mp4")
        assert np.abs(found[0].image.data - picture).max() < 2.5 / 255  # 8 bits of three channels, twice rounded


@pytest.mark.parametrize(("depth", "color"), list(itertools.product((8, 16), (False, True))))
def test_lossless_is(tmp_path, depth, color):
    pictures = [RNG.random((47, 63, 3) if color else (47, 63)) for _ in range(3)]
    write(tmp_path / "a.mkv", pictures, encoding=Encoding(lossless=True, bit_depth=depth))
    clip, found = read(tmp_path / "a.mkv")
    assert (clip.info.codec, clip.info.bit_depth) == ("ffv1", depth)
    for frame, sent in zip(found, pictures, strict=True):
        assert np.array_equal(levels(frame), np.rint(sent * (2**depth - 1)))


def packets(path):
    with av.open(str(path)) as file:
        return [(bytes(p), float(p.pts * p.time_base)) for p in file.demux(audio=0) if p.size]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_audio_is_copied_to_the_byte_and_to_the_moment(tmp_path, make_clip, suffix):
    source = make_clip(tmp_path / "s.mp4", moving(25), codec="libx264", pixels="yuv420p", audio=1.0)
    with AudioTrack(source) as audio:
        assert write(tmp_path / f"a{suffix}", [SOFT / 255.0] * 25, audio=audio).audio == "aac"
    sent, got = (packets(path) for path in (source, tmp_path / f"a{suffix}"))
    assert sent[0][1] < 0  # AAC's priming
    assert [content for content, _ in got] == [content for content, _ in sent]
    assert [t for _, t in got] == pytest.approx([t for _, t in sent], abs=1e-3)  # Matroska counts milliseconds


def test_audio_begins_and_ends_with_the_pictures(tmp_path, make_clip):
    source = make_clip(tmp_path / "s.mp4", moving(50), codec="libx264", pixels="yuv420p", audio=2.0)
    with AudioTrack(source, begins=Fraction(1, 2)) as audio:
        write(tmp_path / "a.mp4", [SOFT / 255.0] * 10, audio=audio)
    shifted = {content: t - 0.5 for content, t in packets(source)}
    got = packets(tmp_path / "a.mp4")
    assert -0.05 <= got[0][1] < 0 and 0.35 < got[-1][1] < 0.4  # packets last 23 ms, the pictures 0.4 s
    assert [t for _, t in got] == pytest.approx([shifted[content] for content, _ in got], abs=1e-3)


def sound(path):
    """Samples of the first channel that a player plays from time 0 on, and the rate."""
    with av.open(str(path)) as file:
        frames = list(file.decode(audio=0))
    rate = frames[0].rate
    at = round(float(frames[0].pts * frames[0].time_base) * rate)
    return np.concatenate([f.to_ndarray()[0] for f in frames])[max(0, -at) :].astype(float), max(0, at), rate


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
@pytest.mark.parametrize("begins", [Fraction(0), Fraction(1, 7)])
def test_what_is_heard_is_the_source_from_the_first_sample_on(tmp_path, make_clip, suffix, begins):
    """AAC lays each packet over the one before: without that one the first 23 ms are heard damaged."""
    source = make_clip(tmp_path / "s.mp4", moving(20), codec="libx264", pixels="yuv420p", audio=0.8)
    with AudioTrack(source, begins) as audio:
        write(tmp_path / f"a{suffix}", [SOFT / 255.0] * 10, audio=audio)
    sent, _, rate = sound(source)
    got, at, _ = sound(tmp_path / f"a{suffix}")
    assert at == 0
    first = float(begins) * rate
    errors = [np.abs(got[:8000] - sent[k : k + 8000]).max() for k in (math.floor(first), math.ceil(first))]
    # the tone turns by 0.05 from sample to sample, so one sample off would be an error of 0.015; a new start of the
    # decoder is one of 1e-4 (noise filling), a missing packet one of 0.3
    assert min(errors) < (1e-6 if begins == 0 else 1e-3)
    with av.open(str(tmp_path / f"a{suffix}")) as file:  # and the pictures have not moved
        stamps = [float(p.pts * p.time_base) for p in file.demux(video=0) if p.size]
    assert sorted(stamps) == pytest.approx([k / 25 for k in range(10)], abs=1e-9)


def with_sound(path, codec):
    """A clip of four frames beside noise in that codec, mono."""
    with av.open(str(path), "w") as file:
        video = file.add_stream("ffv1", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "gray"
        audio = file.add_stream(codec, rate=48000, layout="mono")
        for picture in moving(4):
            file.mux(video.encode(av.VideoFrame.from_ndarray(picture[..., 0].copy(), "gray")))
        noise = RNG.integers(-4000, 4000, (1, 9600)).astype(np.int16)
        block = av.AudioFrame.from_ndarray(noise, "s16", "mono")
        block.rate, block.pts = 48000, 0
        for part in av.AudioResampler(audio.codec_context.format, "mono", 48000).resample(block):
            file.mux(audio.encode(part))
        for last in (video, audio):
            file.mux(last.encode(None))
    return path


@pytest.mark.parametrize(
    ("encoder", "name", "fits"),
    [("libmp3lame", "mp3", ".mp4 .mov .mkv"), ("libopus", "opus", ".mp4 .mkv"), ("flac", "flac", ".mp4 .mkv")],
)
def test_each_sound_goes_where_it_fits_and_is_called_by_its_name(tmp_path, encoder, name, fits):
    try:
        source = with_sound(tmp_path / "s.mkv", encoder)
    except av.codec.codec.UnknownCodecError:
        pytest.skip(f"a PyAV without {encoder}")
    assert open_clips([source])[0].info.audio == name
    for suffix in (".mp4", ".mov", ".mkv"):
        with AudioTrack(source) as audio:
            writer = write(tmp_path / f"a{suffix}", [SOFT / 255.0] * 4, audio=audio)
        if suffix in fits.split():
            assert (writer.audio, writer.notes) == (name, [])
            sent, got = sound(source)[0], sound(tmp_path / f"a{suffix}")[0]
            assert len(got) >= 0.15 * 48000
            if suffix == ".mkv":  # in the others the milliseconds of Matroska move it by a sample or more
                common = min(len(sent), len(got))
                assert np.array_equal(got[:common], sent[:common])
        else:
            assert writer.audio is None and f"since {suffix} cannot hold {name}; write .mkv" in writer.notes[0]


def test_audio_that_does_not_fit_is_left_out_and_told(tmp_path, make_clip):
    source = make_clip(tmp_path / "s.mp4", moving(5), codec="libx264", pixels="yuv420p", audio=0.2)
    with AudioTrack(source) as audio:
        writer = write(tmp_path / "a.webm", [SOFT / 255.0] * 5, audio=audio)
    assert writer.audio is None and "cannot hold aac; write .mkv" in writer.notes[0]


@pytest.mark.parametrize(
    ("name", "encoding", "words"),
    [
        ("a.avi", Encoding(), r"expected a name ending in \.mp4, \.mov, \.mkv, \.webm"),
        ("a.mp4", Encoding(lossless=True), r"Write a\.mkv"),
        ("a.mp4", Encoding(bit_depth=16), "--lossless"),
        ("a.mkv", Encoding(lossless=True, crf=3), "one of the two"),
        ("a.mp4", Encoding(crf=60), r"in \[0, 51\]"),
    ],
)
def test_what_a_format_cannot_hold(tmp_path, name, encoding, words):
    with pytest.raises(DDFMError, match=words):
        write(tmp_path / name, [SOFT / 255.0], encoding=encoding)
    assert list(tmp_path.iterdir()) == []


def test_another_encoder_where_h264_is_missing(tmp_path, monkeypatch):
    """Its header holds time bases up to 1/65535 only, and no odd sides."""
    monkeypatch.setattr("ddfm.io.video_writer._CONTAINERS", {".mp4": ("mp4", ("nothing", "mpeg4"))})
    stamps = [Fraction(k, 30) for k in range(5)]
    writer = write(tmp_path / "a.mp4", [SOFT / 255.0] * 5, times=stamps, time_base=Fraction(1, 90_000))
    assert writer.codec == "mpeg4"
    assert [f.time for f in read(tmp_path / "a.mp4")[1]] == stamps
    with pytest.raises(DDFMError, match="even sides"):
        write(tmp_path / "b.mp4", [SOFT[:47] / 255.0])
    monkeypatch.setattr("ddfm.io.video_writer._CONTAINERS", {".mp4": ("mp4", ("nothing",))})
    with pytest.raises(DDFMError, match="no encoder"):
        write(tmp_path / "c.mp4", [SOFT / 255.0])
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]


def test_nothing_is_overwritten_unless_told(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"mine")
    with pytest.raises(DDFMError, match="exists"):
        write(tmp_path / "a.mp4", [SOFT / 255.0])
    assert (tmp_path / "a.mp4").read_bytes() == b"mine"
    write(tmp_path / "a.mp4", [SOFT / 255.0], overwrite=True)
    assert len(read(tmp_path / "a.mp4")[1]) == 1


def test_a_file_that_appears_meanwhile_stays(tmp_path):
    def pictures():
        yield SOFT / 255.0
        (tmp_path / "a.mp4").write_bytes(b"mine")

    with (
        pytest.raises(DDFMError, match="exists"),
        ClipWriter(
            tmp_path / "a.mp4", size=(48, 64), rate=Fraction(25), time_base=Fraction(1, 25), color=True
        ) as writer,
    ):
        for k, picture in enumerate(pictures()):
            writer.write(picture, Fraction(k, 25), Fraction(1, 25))
    assert (tmp_path / "a.mp4").read_bytes() == b"mine" and leftovers(tmp_path) == []


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm"])
def test_a_stop_leaves_nothing_or_a_file_that_plays(tmp_path, suffix):
    path, partial = tmp_path / f"a{suffix}", tmp_path / f"a.partial{suffix}"
    with pytest.raises(KeyboardInterrupt):
        write(path, [SOFT / 255.0] * 9, fail=6)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(KeyboardInterrupt):
        write(path, [SOFT / 255.0] * 9, fail=6, partial=partial)
    assert [p.name for p in tmp_path.iterdir()] == [partial.name]
    clip, found = read(partial)
    assert len(found) == 6 and clip.info.breaks_off is None


FULL = """
import resource, sys
from fractions import Fraction
from pathlib import Path
import numpy as np
from ddfm._checks import DDFMError
from ddfm.io.video_writer import ClipWriter
resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))  # a disk that is full after so many bytes
rng, path = np.random.default_rng(0), Path(sys.argv[1])
try:
    with ClipWriter(path, size=(96, 128), rate=Fraction(25), time_base=Fraction(1, 25), color=True,
                    partial=path.with_name("partial" + path.suffix)) as writer:
        for k in range(40):
            writer.write(rng.random((96, 128, 3)), Fraction(k, 25), Fraction(1, 25))
except DDFMError as error:
    print(error, "kept", writer.frames if writer.kept else 0)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits of a file's size are the system's")
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_full_disk_teaches_and_leaves_what_plays(tmp_path, suffix):
    call = [sys.executable, "-c", FULL, str(tmp_path / f"a{suffix}")]
    done = subprocess.run(call, capture_output=True, text=True, check=True)
    assert os.strerror(errno.EFBIG) in done.stdout and "another disk" in done.stdout
    left = [path.name for path in tmp_path.iterdir()]
    if suffix == ".mp4":  # does not play without what is written last
        assert left == [] and done.stdout.endswith("kept 0\n")
    else:
        assert left == ["partial.mkv"]
        _, found = read(tmp_path / "partial.mkv")
        assert 2 <= len(found) < 40 and done.stdout.endswith(f"kept {len(found)}\n")


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(DDFMError, match="the folder must exist"):
        write(tmp_path / "no" / "a.mp4", [SOFT / 255.0])
