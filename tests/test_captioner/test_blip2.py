"""Captions are those that transformers writes by its documented way for single pictures.

The other pictures in a batch make no difference.
"""

import itertools
import json
import shutil
import threading
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import Blip2ForConditionalGeneration, Blip2Processor

from pincaption.captioner.blip2 import Blip2
from pincaption.captioner.checkpoint import CheckpointError
from pincaption.captioner.find import find_checkpoint
from pincaption.captioner.model import Decoding, choose_device, choose_dtype
from pincaption.images.decode import decode

PROMPTS = [
    "",
    "a photo of",
    "Question: what is this? Answer:",
    "a red ball on a grey background",
    "ünïcode 猫 🐈",
]
MIXED = [PROMPTS[i % 4] for i in range(12)]
DECODINGS = [
    Decoding(),
    Decoding(num_beams=3, max_new_tokens=12),
    Decoding(min_new_tokens=0, max_new_tokens=15, no_repeat_ngram=2),
]


@pytest.fixture
def library(model: Blip2) -> tuple[Blip2Processor, Blip2ForConditionalGeneration]:
    """Processor and model as the model card loads them."""
    folder = model.checkpoint.path
    return Blip2Processor.from_pretrained(folder), Blip2ForConditionalGeneration.from_pretrained(
        folder
    ).eval()


def by_the_library(library, picture: Image.Image, prompt: str, decoding: Decoding, eos: list[int]) -> str:
    processor, model = library
    inputs = processor(images=picture, return_tensors="pt", **({"text": prompt} if prompt else {}))
    parameters = {
        "max_new_tokens": decoding.max_new_tokens,
        "min_new_tokens": decoding.min_new_tokens,
        "num_beams": decoding.num_beams,
        "no_repeat_ngram_size": decoding.no_repeat_ngram,
    }
    ids = model.generate(
        **inputs,
        do_sample=False,
        eos_token_id=eos,
        pad_token_id=model.config.text_config.pad_token_id,
        **parameters,
    )[0]
    if model.config.use_decoder_only_language_model:
        ids = ids[inputs["input_ids"].shape[1] if prompt else model.config.num_query_tokens + 1 :]
    return processor.decode(ids, skip_special_tokens=True)


def texts(
    model: Blip2, pixels: np.ndarray, prompts: list[str], decoding: Decoding | None = None
) -> list[str]:
    return [t.text for t in model.caption(pixels, prompts, decoding or Decoding())]


def new_tokens(model: Blip2, pixels: np.ndarray, decoding: Decoding) -> list[list[int]]:
    """The ids of the tokens that the model writes about these pictures, without a prompt."""
    return model.write(model.see(pixels), [""] * len(pixels), decoding).tolist()


class TestInputs:
    @pytest.mark.parametrize("prompt", PROMPTS[1:])
    def test_input_ids_are_the_processors(self, model, library, pictures, prompt):
        wanted = library[0](images=pictures[0], text=prompt, return_tensors="pt")
        ids, mask = model.input_ids([prompt])
        assert ids.tolist() == wanted["input_ids"].tolist()
        assert mask.tolist() == wanted["attention_mask"].tolist()

    def test_without_a_prompt_they_are_what_generate_makes(self, model, library, pixels):
        config = model.model.config
        ids, mask = model.input_ids([""])
        assert ids.tolist() == [
            [config.image_token_index] * config.num_query_tokens + [config.text_config.bos_token_id]
        ]
        assert mask.all()
        made = library[1].generate(
            pixel_values=model.pixel_values(pixels[:3]), max_new_tokens=8, do_sample=False
        )
        given = library[1].generate(
            pixel_values=model.pixel_values(pixels[:3]),
            input_ids=ids.expand(3, -1),
            attention_mask=mask.expand(3, -1),
            max_new_tokens=8,
            do_sample=False,
        )
        assert made.tolist() == given.tolist()

    def test_padding_stands_away_from_where_the_model_writes(self, model):
        ids, mask = model.input_ids(["a photo of", ""])
        queries, short = model.model.config.num_query_tokens, model.input_ids([""])[0][0, -1]
        padding = ids.shape[1] - queries - 1
        assert mask[0].all()
        if model.decoder_only:  # image tokens, padding, prompt | new tokens
            assert mask[1].tolist() == [1] * queries + [0] * padding + [1]
            assert ids[1, -1] == short
        else:  # image tokens, prompt, padding; the new tokens are elsewhere
            assert mask[1].tolist() == [1] * queries + [1] + [0] * padding
            assert ids[1, queries] == short

    def test_an_image_token_in_a_prompt_is_no_picture(self, model, pixels):
        assert texts(model, pixels[:2], ["a photo of<image><image>", ""]) == texts(
            model, pixels[:2], ["a photo of", ""]
        )

    def test_pixel_values_are_the_processors(self, model, library, pictures):
        for picture in pictures:
            mine = model.pixel_values(np.stack([decode(png(picture), (32, 32))]))
            theirs = library[0](images=picture, return_tensors="pt")["pixel_values"]
            assert mine.shape == theirs.shape == (1, 3, 32, 32)
            assert torch.allclose(mine, theirs, rtol=0, atol=1e-6)

    @pytest.mark.parametrize(
        "settings",
        [
            {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.1, 0.2, 0.3]},
            {"rescale_factor": 1 / 127.5, "image_mean": [1, 1, 1], "image_std": [1, 1, 1]},
            {"do_rescale": False, "image_mean": [123.7, 116.3, 103.5], "image_std": [58.4, 57.1, 57.4]},
            {"do_normalize": False},
            {"resample": 2},
            {"resample": 1},
            {"size": 32},
        ],
        ids=lambda settings: "-".join(settings),
    )
    def test_other_settings_of_the_processor_are_followed(self, opt_folder, tmp_path, pictures, settings):
        folder = shutil.copytree(opt_folder, tmp_path / "copy")
        stored = json.loads((folder / "preprocessor_config.json").read_text())
        (folder / "preprocessor_config.json").write_text(json.dumps(stored | settings))
        model, processor = Blip2(find_checkpoint(str(folder))), Blip2Processor.from_pretrained(folder)
        resample = Image.Resampling[model.preprocessing["resample"].upper()]
        for picture in pictures[:3]:
            mine = model.pixel_values(np.stack([decode(png(picture), (32, 32), resample=resample)]))
            assert torch.allclose(
                mine, processor(images=picture, return_tensors="pt")["pixel_values"], rtol=1e-6, atol=1e-6
            )

    def test_prompts_are_safe_to_ask_for_from_many_threads(self, model):
        prompts = [f"a photo of {i} {'red balls ' * (i % 7)}" for i in range(400)]
        alone = Blip2(model.checkpoint)
        wanted, found = [alone.input_ids([p])[0].tolist() for p in prompts], {}

        def work(start: int) -> None:
            for i in range(start, len(prompts), 4):
                model.prompt_fits(prompts[i], Decoding())
                found[i] = model.input_ids([prompts[i]])[0].tolist()

        threads = [threading.Thread(target=work, args=[i]) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [found.get(i) for i in range(len(prompts))] == wanted


class TestCaptions:
    @pytest.mark.parametrize("decoding", DECODINGS, ids=["plain", "beams", "no-repeat"])
    def test_they_are_those_of_the_library(self, model, library, pictures, pixels, decoding):
        mine = texts(model, pixels, MIXED, decoding)
        assert mine == [
            by_the_library(library, picture, prompt, decoding, model.end_tokens)
            for picture, prompt in zip(pictures, MIXED, strict=True)
        ]

    @pytest.mark.parametrize("decoding", DECODINGS, ids=["plain", "beams", "no-repeat"])
    def test_a_batch_says_what_each_picture_says_alone(self, model, pixels, decoding):
        batch = model.caption(pixels, MIXED, decoding)
        assert batch == [model.caption(pixels[i : i + 1], MIXED[i : i + 1], decoding)[0] for i in range(12)]
        assert len({t.text for t in batch}) >= 10  # else this would prove nothing

    def test_the_output_layer_of_t5_is_the_checkpoints_own(self, t5, t5_folder):
        """It is not that of the input: Flan-T5 has two, and every word would be wrong."""
        stored = load_file(t5_folder / "model.safetensors")
        language = t5.model.language_model
        assert torch.equal(language.lm_head.weight, stored["language_model.lm_head.weight"])
        assert torch.equal(language.shared.weight, stored["language_model.shared.weight"])
        assert not torch.equal(language.lm_head.weight, language.shared.weight)

    def test_the_prompt_matters(self, model, pixels):
        assert len(set(texts(model, pixels[[0] * 4], MIXED[:4]))) == 4

    def test_the_prompt_is_not_repeated(self, model, pixels):
        for prompt in PROMPTS[1:4]:
            assert not texts(model, pixels[:1], [prompt])[0].startswith(prompt)

    def test_padding_on_the_other_side_would_be_noticed(self, model, pixels, monkeypatch):
        right, build, queries = (
            texts(model, pixels, MIXED),
            model.input_ids,
            model.model.config.num_query_tokens,
        )

        def other_side(prompts):
            ids, mask = build(prompts)
            rows = []
            for row, seen in zip(ids[:, queries:], mask[:, queries:].bool(), strict=True):
                text, padding = row[seen], row[~seen]
                rows.append(torch.cat([text, padding] if model.decoder_only else [padding, text]))
            return torch.cat([ids[:, :queries], torch.stack(rows)], 1), torch.ones_like(
                mask
            ) if not model.decoder_only else mask

        monkeypatch.setattr(model, "input_ids", other_side)
        wrong = texts(model, pixels, MIXED)
        longest = [
            i
            for i, prompt in enumerate(MIXED)
            if prompt == max(MIXED, key=lambda p: len(model._prompt_ids(p)))
        ]
        assert all(wrong[i] == right[i] for i in longest)  # nothing is padded there
        assert sum(a != b for a, b in zip(wrong, right, strict=True)) >= 6

    def test_channels_in_another_order_would_be_noticed(self, model, pixels):
        swapped = texts(model, np.ascontiguousarray(pixels[..., ::-1]), [""] * 12)
        assert sum(a != b for a, b in zip(swapped, texts(model, pixels, [""] * 12), strict=True)) >= 10


class TestDecoding:
    """Every parameter is given by us. The checkpoint's own settings have no effect."""

    def test_a_hostile_generation_config_changes_nothing(self, model, folder, pixels):
        stored = json.loads((folder / "generation_config.json").read_text())
        hostile = {
            "do_sample": True,
            "temperature": 9.0,
            "top_k": 3,
            "max_length": 7,
            "min_length": 50,
            "repetition_penalty": 5.0,
            "num_beams": 4,
            "length_penalty": 3.0,
        }
        hostile |= {
            "num_return_sequences": 2,
            "suppress_tokens": list(range(5, 60)),
            "bad_words_ids": [[30], [31]],
            "forced_bos_token_id": 80,
            "early_stopping": True,
        }
        hostile |= {
            "no_repeat_ngram_size": 1,
            "renormalize_logits": True,
            "max_time": 0.0001,
            "return_dict_in_generate": True,
            "penalty_alpha": 0.6,
            "use_cache": False,
        }
        (folder / "generation_config.json").write_text(json.dumps(stored | hostile))
        assert Blip2(find_checkpoint(str(folder))).caption(pixels, MIXED, Decoding()) == model.caption(
            pixels, MIXED, Decoding()
        )

    def test_a_hostile_text_config_changes_nothing(self, model, folder, pixels):
        """Where older checkpoints kept generation parameters."""
        config = json.loads((folder / "config.json").read_text())
        config["text_config"] |= {
            "do_sample": True,
            "max_length": 7,
            "repetition_penalty": 5.0,
            "num_beams": 4,
            "no_repeat_ngram_size": 1,
        }
        (folder / "config.json").write_text(json.dumps(config))
        assert Blip2(find_checkpoint(str(folder))).caption(pixels, MIXED, Decoding()) == model.caption(
            pixels, MIXED, Decoding()
        )

    def test_end_tokens_of_the_checkpoint_are_honoured(self, model, folder, pixels):
        """A caption ends at the first end token of the checkpoint, and only then counts as finished."""
        decoding = Decoding(min_new_tokens=0)
        before = new_tokens(model, pixels, decoding)
        end = max({i for ids in before for i in ids[2:]}, key=lambda i: sum(i in ids for ids in before))
        stored = json.loads((folder / "generation_config.json").read_text())
        (folder / "generation_config.json").write_text(json.dumps(stored | {"eos_token_id": [end]}))
        changed = Blip2(find_checkpoint(str(folder)))
        after = changed.caption(pixels, [""] * 12, decoding)
        assert 2 <= sum(end in ids for ids in before) < 12
        for caption, old, new in zip(after, before, new_tokens(changed, pixels, decoding), strict=True):
            stop = next((i for i, token in enumerate(old) if token == end or token in model.end_tokens), None)
            assert caption.finished == (stop is not None)
            assert new[: len(old)] == old if stop is None else new[: stop + 1] == old[: stop + 1]
            assert stop is None or set(new[stop + 1 :]) <= {model.model.config.text_config.pad_token_id}

    def test_finished(self, builtin):
        """The built-in checkpoint ends every caption by itself; with too few tokens it cannot."""
        gray = np.full((1, 64, 64, 3), 128, np.uint8)
        enough, cut = (
            builtin.caption(gray, [""], Decoding())[0],
            builtin.caption(gray, [""], Decoding(min_new_tokens=0, max_new_tokens=3))[0],
        )
        assert enough.finished
        assert not cut.finished
        assert enough.text.strip().startswith(cut.text.strip())
        assert len(cut.text) < len(enough.text)

    @pytest.mark.parametrize("tokens", [1, 2, 7, 20])
    def test_min_and_max_new_tokens(self, model, pixels, tokens):
        made = new_tokens(model, pixels, Decoding(min_new_tokens=tokens, max_new_tokens=tokens))
        assert [len(ids) for ids in made] == [tokens] * 12
        assert not {i for ids in made for i in ids[:-1]} & set(model.end_tokens)

    def test_a_minimum_above_the_maximum_gives_way(self, model, pixels):
        assert model.caption(pixels, MIXED, Decoding(min_new_tokens=9, max_new_tokens=3)) == model.caption(
            pixels, MIXED, Decoding(min_new_tokens=3, max_new_tokens=3)
        )

    def test_beams_find_other_captions(self, model, pixels):
        assert texts(model, pixels, MIXED, Decoding(num_beams=4)) != texts(model, pixels, MIXED)

    def test_no_repeat_ngram(self, model, pixels):
        def repeats(decoding: Decoding) -> int:
            pairs = [list(itertools.pairwise(ids)) for ids in new_tokens(model, pixels, decoding)]
            return sum(len(p) - len(set(p)) for p in pairs)

        assert repeats(Decoding(min_new_tokens=30)) > 20
        assert repeats(Decoding(min_new_tokens=30, no_repeat_ngram=2)) == 0

    def test_repeated_calls_agree(self, model, pixels):
        first = model.caption(pixels, MIXED, Decoding())
        torch.manual_seed(1)
        assert model.caption(pixels, MIXED, Decoding()) == first

    def test_prompts_must_leave_room_for_the_caption(self, opt, t5):
        assert opt.prompt_fits("a photo of", Decoding())
        assert not opt.prompt_fits("a photo of " * 40, Decoding())
        # 96 positions, 6 image tokens, the token that begins
        assert opt.prompt_fits("", Decoding(max_new_tokens=89))
        assert not opt.prompt_fits("", Decoding(max_new_tokens=90))
        assert t5.prompt_fits("a photo of " * 40, Decoding())
        assert not t5.prompt_fits("a photo of " * 10_000_000, Decoding())

    def test_the_last_position_can_be_used(self, opt, pixels):
        assert len(texts(opt, pixels, [""] * 12, Decoding(max_new_tokens=89, min_new_tokens=89))) == 12


class TestDtype:
    @pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
    def test_half_precision_on_the_cpu(self, model, pixels, dtype):
        half = Blip2(model.checkpoint, dtype=dtype)
        assert next(half.model.language_model.parameters()).dtype == getattr(torch, dtype)
        assert len({t.text for t in half.caption(pixels, MIXED, Decoding())}) >= 9

    def test_auto_is_float32_unless_the_processor_computes_in_bfloat16(self):
        flags = Path("/proc/cpuinfo").read_text().split() if Path("/proc/cpuinfo").exists() else []
        fast = "avx512_bf16" in flags or "amx_bf16" in flags
        assert choose_dtype("auto", "cpu") == ("bfloat16" if fast else "float32")
        assert choose_dtype("float16", "cpu") == "float16"

    @pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
    def test_devices_of_a_machine_without_a_gpu(self):
        assert choose_device() == choose_device("cpu") == "cpu"
        with pytest.raises(
            CheckpointError,
            match="there is no device cuda:1: this machine has 0 GPUs that torch can use; try the device cpu",
        ):
            choose_device("cuda:1")


def png(picture: Image.Image) -> bytes:
    file = BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()
