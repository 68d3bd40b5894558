"""Tiny models of pictures, speech and video beside text, made from configurations, with random weights."""

import pytest
import torch

WIDE = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 3, "intermediate_size": 32}
SPREAD = {"initializer_range": 0.3}  # weights large enough for scores to differ
VOCABULARY_SIZE, IMAGE = 50, 48


def make(kind, seed=0):
    """A tiny model of a kind, with random weights."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(seed)
    return MAKERS[kind](transformers).eval()


def clip(t):
    text = {**WIDE, "vocab_size": VOCABULARY_SIZE, "eos_token_id": 3, "bos_token_id": 1, "pad_token_id": 2}
    vision = {**WIDE, "image_size": 16, "patch_size": 8}
    return t.CLIPModel(t.CLIPConfig(text_config=text, vision_config=vision, projection_dim=8))


def llava(t):
    vision = t.CLIPVisionConfig(**WIDE, image_size=16, patch_size=8)
    text = t.LlamaConfig(vocab_size=VOCABULARY_SIZE, num_key_value_heads=3, pad_token_id=2, **WIDE, **SPREAD)
    how = {"vision_feature_layer": -1, "vision_feature_select_strategy": "default", "image_seq_length": 4}
    config = t.LlavaConfig(vision_config=vision, text_config=text, image_token_index=IMAGE, **how)
    return t.LlavaForConditionalGeneration(config)


def qwen2_vl(t):
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e4}
    heads = {"num_attention_heads": 3, "num_key_value_heads": 3}
    text = {**WIDE, **heads, "vocab_size": VOCABULARY_SIZE, "bos_token_id": 1, "pad_token_id": 2, "eos_token_id": 3}
    vision = {"depth": 1, "embed_dim": 24, "hidden_size": 24, "num_heads": 3, "mlp_ratio": 2, "patch_size": 4}
    vision |= {"spatial_merge_size": 2, "temporal_patch_size": 2}
    ids = {"image_token_id": IMAGE, "video_token_id": 47, "vision_start_token_id": 46, "vision_end_token_id": 45}
    text |= {"rope_parameters": rope, **SPREAD}
    return t.Qwen2VLForConditionalGeneration(t.Qwen2VLConfig(text_config=text, vision_config=vision, **ids))


def whisper(t):
    sizes = {"d_model": 24, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
    sizes |= {"encoder_attention_heads": 3, "decoder_attention_heads": 3, "num_mel_bins": 8, "max_source_positions": 12}
    ids = {"bos_token_id": 1, "pad_token_id": 2, "eos_token_id": 3, "decoder_start_token_id": 1}
    config = t.WhisperConfig(vocab_size=VOCABULARY_SIZE, max_target_positions=8, init_std=0.2, **sizes, **ids)
    return t.WhisperForConditionalGeneration(config)


def vilt(t):
    sizes = {**WIDE, "vocab_size": VOCABULARY_SIZE, "image_size": 16, "patch_size": 8, "num_labels": 3}
    return t.ViltForQuestionAnswering(t.ViltConfig(**sizes, **SPREAD))


def videomae(t):
    sizes = {**WIDE, "image_size": 16, "patch_size": 8, "num_frames": 4, "tubelet_size": 2, "num_labels": 3}
    return t.VideoMAEForVideoClassification(t.VideoMAEConfig(**sizes, **SPREAD))


def detr(t):
    sizes = {"d_model": 24, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
    sizes |= {"encoder_attention_heads": 3, "decoder_attention_heads": 3, "num_queries": 4, "num_labels": 3}
    backbone = t.ResNetConfig(embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1], out_features=["stage2"])
    return t.DetrForObjectDetection(
        t.DetrConfig(backbone_config=backbone, use_timm_backbone=False, use_pretrained_backbone=False, **sizes)
    )


MAKERS = {f.__name__: f for f in (clip, llava, qwen2_vl, whisper, vilt, videomae, detr)}


WORDS = ["<unk>", "<s>", "<pad>", "</s>", "what", "is", "this", "a", "cat", "dog", "on", "the", "mat", ".", "?", "user"]
WORDS += ["assistant", ":"]
NUMBERS = {**{w: i for i, w in enumerate(WORDS)}, "<ve>": 45, "<vs>": 46, "<video>": 47, "<image>": IMAGE}
CHAT = (
    "{% for m in messages %}<s> {{ m['role'] }} : {% if m['content'] is string %}{{ m['content'] }}{% else %}"
    "{% for part in m['content'] %}{% if part['type'] == 'image' %}<image> {% else %}{{ part['text'] }}{% endif %}{% endfor %}"
    "{% endif %} </s> {% endfor %}<s> assistant :"
)


def processor(kind):
    """What makes token ids and pixel values of texts and pictures."""
    t = pytest.importorskip("transformers")
    made = pytest.importorskip("tokenizers")
    words = made.Tokenizer(made.models.WordLevel(NUMBERS, unk_token="<unk>"))
    words.pre_tokenizer = made.pre_tokenizers.Whitespace()
    special = {"unk_token": "<unk>", "bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>"}
    others = ["<image>", "<video>", "<vs>", "<ve>"]
    tokenizer = t.PreTrainedTokenizerFast(tokenizer_object=words, additional_special_tokens=others, **special)
    if kind == "llava":
        square = {"height": 16, "width": 16}
        images = t.CLIPImageProcessor(size={"shortest_edge": 16}, crop_size=square)
        how = {"patch_size": 8, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
        return t.LlavaProcessor(images, tokenizer, image_token="<image>", chat_template=CHAT, **how)
    tokenizer.image_token, tokenizer.image_token_id = "<image>", IMAGE
    tokenizer.video_token, tokenizer.video_token_id = "<video>", 47
    how = {"patch_size": 4, "merge_size": 2, "temporal_patch_size": 2}
    images = t.Qwen2VLImageProcessor(min_pixels=64, max_pixels=1024, **how)
    return t.Qwen2VLProcessor(images, tokenizer, t.Qwen2VLVideoProcessor(), chat_template=CHAT)
