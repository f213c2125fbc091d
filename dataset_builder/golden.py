"""The content hash of every set of the study, as this version of the generator builds it on any machine."""

from collections.abc import Mapping
from types import MappingProxyType

CONTENT_SHA256: Mapping[str, str] = MappingProxyType(
    {
        "halo_count": "91ca52c65d95514749458588b8eb5c8295bedba06d2f0c1d41c05d8d9daf54ea",
        "halo_count_balanced": "a2ee7c695c30c5f5ad30021079b22aba7b2c65525b0543ee54718cf287bbb1f2",
        "halo_count_single": "6ea22083c13f3421306a8c785a8f88b8cbf628b7eb85f71132ded18a93ac3bed",
        "halo_count_wide": "0a8331b4bc4eae4db9cacf85599710d8a8be023e59ff47d4005605845b9e90f2",
        "halo_count_three": "4d27fae637bf07dbea46e73f85f8ab4addb134ab972ac44737c6bf6ecbf7f3c7",
        "halo_count_blank": "6e437057e198b92fb53d0d437bb52e03a313e964b1370f155f5934185f278907",
        "halo_count_large": "c20a4c999508fb157096958ee9490a094146387efd16d290a68bc2523c49f129",
        "halo_layout_annulus": "2c6d68d0ff30a0cf2c5bbbbd5b422152c59f5d889fb46ff8ee03034a2d52469e",
        "halo_layout_center": "b9fa3f5fd89c7543ae0de816ba893a5e2a99e2c54cb606a6504f2ba465353c2e",
        "halo_layout_grid": "cf545336e6776d6e57bc9235e6134ac3285350cdda7e3960aefdaf2c9112361f",
        "halo_enhance_outline": "56adc1c00e4817612de0290f465e04bbaa47d2aa93a7591bcaf5a3bf36d40f2b",
        "halo_enhance_r20": "2df8894f4cea25b7ed979207d9a32eab71685307b755efa51b9cf3bc7662c5d9",
        "halo_enhance_r32": "3efc0323a86306e813619795e17e89dee20d83f985d8b1439a5bf7f96690f596",
        "halo_enhance_grid": "871e33b7f15461a3d32096bfa514e031e8842519e1f3fae34171ed9fe5c452be",
        "halo_enhance_crosshair": "167818d8c3c3a54ac9e5e674e1be73b237cc02c02946ec73e3640a199fda52ca",
        "halo_enhance_invert": "d1291d6c5beb3519155f3b5ce95d8a5066557d7b26ad2e4c27ab19cffb0c9ab0",
        "halo_count_noise": "06457c520ed48c886985138739c769fbfec18af6602ab64a0893638c7c272c1e",
        "halo_ocr": "f4aac75b0e9da221fa21032232bf7fa6da4351cc04e9bf757c580452be390e86",
        "halo_relate": "8038b91738b9d40907f546ede6b3226177d030aa68bc4568f60ef4fbc8647dd7",
    }
)
