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
        "halo_enhance_base": "e5afd11e073241ed1d1454a00475eb5201d022f85452762a44b1b051febdd654",
        "halo_enhance_outline": "6af76b8172cdd14f40f89799df2f799dd4c0b626a05584ca8464ce32df546800",
        "halo_enhance_r20": "0c755a9e79b54d6b29795c4432ea5495c5c3419b810cd41adabca8efcc09b24b",
        "halo_enhance_r32": "2b3545d71aa7f5b8e76ed22fe7fdc542a70dbf7864dcb16431e34f0300436645",
        "halo_enhance_grid": "068192a7d79629722aad4a1ff5f3638cd166b9e13614ebaed4fcaeec24e9c8ef",
        "halo_enhance_crosshair": "f0b8a2ae2ff5a1fa4ef672a9a06a551e63292e7fc7fd3b532f49cdb28299fadb",
        "halo_enhance_invert": "24fa3da6359f591a51b652441ff2918c28794bc3add1b90eb64f0d5887e58fc1",
        "halo_count_noise": "06457c520ed48c886985138739c769fbfec18af6602ab64a0893638c7c272c1e",
        "halo_ocr": "f4aac75b0e9da221fa21032232bf7fa6da4351cc04e9bf757c580452be390e86",
        "halo_relate": "8038b91738b9d40907f546ede6b3226177d030aa68bc4568f60ef4fbc8647dd7",
    }
)
