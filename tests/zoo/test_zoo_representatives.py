"""Libra decomposes the smallest architecture of every timm module completely."""

import pytest
import timm

import zoo_architectures
import zoo_measurement

pytestmark = pytest.mark.rotating


def words(text):
    return text.split()


CHEAP = words("""
convit_tiny cpubone_nano cs3darknet_focus_s csatv2 cspnext_tiny deit_tiny_patch16_224 dla46x_c
dpn48b edgenext_xx_small efficientformerv2_s0 efficientvim_m1 efficientvit_b0 efficientvit_m0
ese_vovnet19b_slim_dw eva02_tiny_patch14_224 fasternet_t0 gcvit_xxtiny ghostnet_050 hgnetv2_b0
hrnet_w18_small iformer_t inception_next_atto legacy_seresnet18 levit_128s mobilenetv3_small_050
mobilevit_xxs pit_ti_224 poolformerv2_s12 pvt_v2_b0 regnetx_002 repghostnet_050 resnest14d
resnetv2_18 shvit_s1 skresnet18 starnet_s050 swiftformer_xs test_byobnet test_coatnet
test_convnext test_efficientnet test_mambaout test_nfnet test_resnet test_vit test_vit_relpos
visformer_tiny vit_tiny_r_s16_p8_224 xcit_nano_12_p8_224
""")

COSTLY = words("""
beit_base_patch16_224 cait_xxs24_224 coat_tiny convmixer_768_32 crossvit_tiny_240
davit_tiny densenet121 efficientformer_l1 fastvit_t8 focalnet_tiny_srf gemma4_vit_167m
gmlp_ti16_224 halonet_h1 hardcorenas_b hiera_tiny_224 inception_resnet_v2 inception_v3
inception_v4 lcnetv2_small legacy_xception lowformer_b0 mobilenetv5_base mvitv2_tiny
naflexvit_base_patch16_parfac_gap nasnetalarge nest_tiny nextvit_small pnasnet5large qwen3_vit_88m
rdnet_tiny repvit_m1 res2next50 rexnet_100 sam2_hiera_tiny samvit_base_patch16_224 selecsls42
sequencer2d_s swin_s3_tiny_224 swinv2_cr_tiny_224 swinv2_tiny_window8_256 tiny_vit_5m_224
tnt_s_legacy_patch16_224 tresnet_m twins_svt_small vgg11 vitamin_small_224 volo_d1_224 xception41p
""")

TOO_LARGE = {"deepseek_vit_412m": {"depth": 2}}
"""Run in a reduced form."""


def cases():
    for name in CHEAP:
        yield pytest.param(name, id=name)
    for name in [*COSTLY, *TOO_LARGE]:
        yield pytest.param(name, marks=pytest.mark.slow, id=name)


@pytest.mark.parametrize("name", list(cases()))
def test_the_decomposition_is_complete(name):
    shape = zoo_architectures.smallest_shape(name, TOO_LARGE.get(name))
    result = zoo_measurement.measure(name, shape)
    assert result.unknown == ""
    assert result.libra < 1e-9
    assert result.libra_float32 < 1e-5
    assert result.identical
    assert result.contrast > 0.01


def test_every_module_of_timm_is_represented():
    modules = {zoo_architectures.module_of(name) for name in timm.list_models()}
    assert {zoo_architectures.module_of(name) for name in [*CHEAP, *COSTLY, *TOO_LARGE]} == modules


def test_the_measure_sees_what_ordinary_gradients_miss():
    shape = zoo_architectures.smallest_shape("test_vit")
    assert zoo_measurement.measure("test_vit", shape).plain > 0.1
