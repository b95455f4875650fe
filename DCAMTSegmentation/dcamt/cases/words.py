"""Find the words in names of files and folders, and tell what they mean.

The words cover nnU-Net, the Left Atrial Segmentation Challenges 2013 (`gt_std`, `gt_noPV`) and 2018 (`lgemri`,
`laendo`, `lawall`), LAScarQS 2022 (`enhanced`, `atriumSegImgMO`, `scarSegImgM`), MBAS 2024 (`MBAS_001_gt`, which is a
scan despite its `gt`) and EMIDEC (`Images`, `Contours`).
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable
from functools import lru_cache


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


_NNUNET_PARTS = ("tr", "ts", "va", "str", "sts", "sva")
"""What follows `image` or `label` in folders' names: `imagesTr` (nnU-Net), `imageTr` (some other data sets)."""
_WHOLE_IMAGE_WORDS = _set(
    "image images img imgs imaging scan scans volume volumes lgemri enhanced bild"
    " bilder imagen imagenes immagine immagini"
)
_KINDS_OF_IMAGES = ("image", "img", "scan", "volume")
_KINDS_OF_LABELS = ("label", "mask", "msk", "seg", "segmentation", "annotation")
IMAGE_WORDS = _WHOLE_IMAGE_WORDS | {f"{kind}{part}" for kind in _KINDS_OF_IMAGES for part in _NNUNET_PARTS}
ATRIUM_WORDS = _set("la left atrium atrial leftatrium endo endocardium cavity lumen")
"""Words for the left atrium, which a label's name may add to its scan's name: `p1_LA_gt` for `p1`."""
OTHER_STRUCTURES = _set(
    "ra rv lv right ventricle ventricles myo myocardium epi epicardium wall walls scar scars fibrosis lge fat aorta ao"
    " pv pvs vein veins laa appendage esophagus oesophagus lspv lipv rspv ripv svc ivc raa pericardium eat lvot rvot mv"
    " tv valve valves mitral tricuspid septum thrombus coronary coronaries lad artery arteries trachea airway"
)
"""Words for other structures than the left atrium: `p1_RV_gt`."""
OTHER_STRUCTURES_WITHOUT_LGE = OTHER_STRUCTURES - {"lge"}
"""`lge` may mean the scar (`p1_lge_gt`) or the modality (`p1_lge`)."""
_EXAMINATION_WORDS = _set(
    "followup follow fu fup baseline bl pre post preop postop preablation postablation ablation visit exam examination"
    " session sess ses timepoint tp repeat repeated rescan retest prior previous acute chronic day days week weeks wk"
    " month months mo year years yr ed es systole diastole verlauf suivi seguimiento after before vor nach avant après"
    " apres stress rest early late first second redo systolic diastolic insp"
)
"""Words for one of several examinations or heart phases of a patient: `p1_followup`, `p1_visit2`."""
_COUNTED_WORDS = _set("m y h t time frame phase echo acq acquisition")
"""Words that, joined to a number, mean one of several images of a patient: `p1_m12`, `p1_frame3`."""
_FIELD_STRENGTH = re.compile(r"\d+t")
"""The scanner's magnetic field in tesla, as in `p1_3T`; `t3` may be the third time point."""
QUALIFIERS = _set(
    "corrected edited final reviewed checked consensus expert manual binary ground std nopv segment desc itksnap slicer"
)
"""Words that state how a label was made: `p1_final_seg` is a label of `p1`.

3D Slicer names exported labels `Segmentation-Segment_1-label`; a BIDS name may contain `desc-manual`.
"""
OUTLINE_WORDS = ATRIUM_WORDS | QUALIFIERS
OUTLINE_WORDS |= _set(
    "roi rois labelled labeled gold reference references ref blood pool bloodpool heart target targets delineation"
    " delineations lab labs"
)
"""Words that a mask of the atrium may add to its scan's path: `p1_roi` for `p1`."""
_AMBIGUOUS_WORDS = _set("heart blood pool bloodpool left")
"""Words of `OUTLINE_WORDS` that may mean another structure, unless a word for the atrium stands beside them."""
_SUFFIXES = ("seg", "segmentation", "mask", "msk", "label", "gt", "contour")
LABEL_WORDS = _set(
    "label labels labelmap labelmaps labelmapvolume lbl lbls seg segs segmentation"
    " segmentations mask masks msk msks gt gts groundtruth outline outlines annotation annotations dseg laendo truth"
    " goldstandard annot annotated segm segmented maske masken segmentierung segmentierungen kontur konturen masque"
    " masques mascara máscara mascaras segmentación segmentacion maschera maschere segmentazione contour contours"
    " manual atriumsegimgmo atriumsegimg atriumsegimgm"
)
LABEL_WORDS |= {
    f"{structure}{suffix}" for structure in ("la", "atrium", "leftatrium", "manual") for suffix in _SUFFIXES
}
LABEL_WORDS |= {f"{kind}{part}" for kind in _KINDS_OF_LABELS for part in _NNUNET_PARTS}
OTHER_LABEL_WORDS = _set("lawall raendo scarsegimgm scarsegimg scarsegimgmo")
OTHER_LABEL_WORDS |= {
    f"{structure}{suffix}" for structure in ("ra", "rv", "lv", "wall", "scar") for suffix in _SUFFIXES
}
"""Words for labels of other structures (`FileKind.OTHER_LABEL`): `p1_lawall`."""
PREDICTION_WORDS = _set("pred preds predict prediction predictions predicted autoseg")
"""Words for automatic results."""
RESULT_WORDS = _set(
    "auto automatic automated result results output outputs out dcamt nnunet prob probs probability probabilities"
    " softmax logits uncertainty entropy confidence probmap probmaps heatmap heatmaps distance distmap sdf totalseg"
    " totalsegmentator doubt disagreement agreement"
)
"""Words that mean an automatic result only beside a scan or label: `p1_output` beside `p1`."""
FORMAT_WORDS = _set("dicom dcm nifti nii nrrd mha raw orig original originals data input inputs")
MODALITY_WORDS = FORMAT_WORDS | _set(
    "mri mr mrt irm mra ct cta lge de t1 t2 t1w t2w t1ce flair c0 cine bssfp cmr demri lgemr lgecmr cemr cemra psir dce"
)
_JOINABLE = "|".join((*ATRIUM_WORDS, *_SUFFIXES, "heart", "asc", "desc", "pulm", r"\d"))
_STRUCTURE = "|".join(OTHER_STRUCTURES_WITHOUT_LGE)
_JOINED_STRUCTURE = re.compile(rf"(?:{_JOINABLE})*(?:{_STRUCTURE})(?:{_JOINABLE}|{_STRUCTURE})*", re.IGNORECASE)
"""Matches `wall`, `wall2` and `LAwallMask`."""
_PART_WORDS = _set("train training test testing val validation")
_FILE_WORDS = _set("file files map maps folder all")
"""Additional words in the name of a folder of labels: `maps` in `label maps`."""
KIND_WORDS = IMAGE_WORDS | LABEL_WORDS | OTHER_LABEL_WORDS | PREDICTION_WORDS
PAIRING_WORDS = IMAGE_WORDS | LABEL_WORDS | PREDICTION_WORDS | RESULT_WORDS
"""Words that are ignored when scans and labels are paired: `p1_seg` is a label of `p1_image`."""
SEPARATORS = re.compile(r"([_\-. ]+)")
_NUMBERED = re.compile(
    r"(?<![^_\-. ])(label|labels|img|image|seg|mask|msk|gt|contour|volume|scan)(\d+)(?![^_\-. ])", re.IGNORECASE
)
"""A word that is joined to a number: `img0001` has the words `img` and `0001`."""
_KIND = rf"(?:{'|'.join((*_KINDS_OF_IMAGES, *_KINDS_OF_LABELS))})s?"
_PART = r"train(?:ing)?|test(?:ing)?|val(?:idation)?|data|dir"
_JOINED_PART = re.compile(
    rf"(?<![^_\-. ])(?:{_KIND}(?=(?:{_PART})(?![^_\-. ]))|(?:{_PART})(?={_KIND}(?![^_\-. ])))", re.IGNORECASE
)
"""The first of two joined words: `images` in `imagesTrain`, `train` in `trainlabels`."""
_MBAS_SCAN = re.compile(r"(?<=^MBAS_\d{3}_)gt(?=$)", re.IGNORECASE)
"""The word for scans in the MBAS challenge 2024, whose labels are named `MBAS_001_label`."""
_NUMBER = re.compile(r"v?\d+")
"""The number of a label or of its version, as in `Segmentation 1` and `final_v2`."""
_VERSION = re.compile(r"v\d+", re.IGNORECASE)
_INITIALS = re.compile(r"[^\W\d_]{1,3}")
_NO_INITIALS = OTHER_STRUCTURES | MODALITY_WORDS | RESULT_WORDS | IMAGE_WORDS | LABEL_WORDS | ATRIUM_WORDS
_NO_INITIALS |= _set("av cs eam ed es lax mv new old pa pre raa sax tv")
"""Words, such as `ra`, that are not taken for a person's initials."""
CAPITALISED = re.compile(
    r"(?<=[a-z0-9])(?=(?:Segs?|Segmentations?|Masks?|Msks?|Labels?|Labelmaps?|Contours?|GTs?|GroundTruth|Preds?"
    r"|Predictions?|Annotations?|Images?|Imgs?|Scans?|MRI?|MRT|CT|LGE)(?![A-Za-z]))"
)
"""The start of a capitalised word, as in `p1Mask` or `p1LGE`."""


@lru_cache(maxsize=1 << 16)  # While cases are searched in a folder, each name is split many times.
def split_words(text: str) -> tuple[str, ...]:
    """Return the words of a name at even indices, and the separators between them at odd indices.

    Accented letters are composed (NFC): archives made on macOS may contain decomposed names.
    """
    text = unicodedata.normalize("NFC", text)
    text = CAPITALISED.sub("_", _MBAS_SCAN.sub("image", text))
    return tuple(SEPARATORS.split(_JOINED_PART.sub(r"\g<0>_", _NUMBERED.sub(r"\1_\2", text))))


def words_of(text: str) -> set[str]:
    """Return the words of a name in lower case."""
    return {word.lower() for word in split_words(text)[::2]}


def has_word(name: str, words: Collection[str]) -> bool:
    """Return whether a name has one of the words."""
    return not words_of(name).isdisjoint(words)


def without_words(name: str, dropped: Collection[str]) -> str:
    """Return a name without the words in `dropped`, and without separators at its ends."""
    rest = unicodedata.normalize("NFC", name)
    if not has_word(name, dropped):
        return rest.strip("_-. ")
    rest, kept = _MBAS_SCAN.sub("image", rest), []
    words = split_words(name)
    for before, word in zip(("", *words[1::2]), words[::2], strict=True):
        separator = before if rest.startswith(before) else ""  # `split_words` adds separators between joined words.
        rest = rest[len(separator) + len(word) :]
        if word.lower() not in dropped:
            kept.append(separator + word)
    return "".join(kept).strip("_-. ")


def rests_of_mask(name: str) -> list[str]:
    """Return what may remain of a mask's name without the words for its structure; the first rest is the longest.

    Initials, versions and the words after the structure may be left out, too.

    >>> [rests_of_mask(name) for name in ("p1_LA_2", "JS_p1_LA", "p1_v2_LA", "p1", "LA")]
    [['p1_2', 'p1'], ['JS_p1', 'p1'], ['p1_v2', 'p1'], ['p1'], []]
    """
    known = OUTLINE_WORDS | OTHER_STRUCTURES_WITHOUT_LGE
    structures = {word for word in words_of(name) if word.strip("0123456789") in known}
    rests = (without_words(name, structures), _words_before(name, structures))
    return list(filter(None, dict.fromkeys((*rests, *map(_without_initials, rests)))))


def _words_before(name: str, known: Collection[str]) -> str:
    words = split_words(name)
    first = next((n for n in range(0, len(words), 2) if words[n].lower() in known), len(words))
    return "".join(words[:first]).strip("_-. ")


def _without_initials(name: str) -> str:
    return without_words(name, {word for word in words_of(name) if _VERSION.fullmatch(word) or _may_be_initials(word)})


def further_words(pieces: Iterable[str]) -> frozenset[str]:
    """Return the words among the pieces of a name; separators, and the numbers of copies such as `(1)`, are left out.

    >>> sorted(further_words(("LA+wall", "_", "RV(1)", " ", "(1)", "2")))
    ['2', 'LA', 'RV', 'wall']
    """
    return frozenset(count_words(pieces))


def count_words(pieces: Iterable[str]) -> Counter[str]:
    """Return how often each of `further_words(pieces)` occurs."""
    return Counter(word for piece in pieces for word in _words_without_copy_numbers(piece))


@lru_cache(maxsize=1 << 16)
def _words_without_copy_numbers(piece: str) -> tuple[str, ...]:
    return tuple(re.findall(r"[^\W_]+", re.sub(r"\(\d+\)", "", piece)))


def means_examination(words: Iterable[str]) -> bool:
    """Return whether any word identifies one of a patient's examinations or images.

    >>> [means_examination([word]) for word in ("Followup", "visit2", "m12", "6months", "scan2", "trans", "3T")]
    [True, True, True, True, True, False, False]
    """
    counted = _COUNTED_WORDS | IMAGE_WORDS | MODALITY_WORDS
    known = (word for word in map(str.lower, words) if not _FIELD_STRENGTH.fullmatch(word))
    parts = [(word, word.strip("0123456789")) for word in known]
    return any(letters in _EXAMINATION_WORDS or (letters != word and letters in counted) for word, letters in parts)


def means_other_structure(words: Iterable[str]) -> bool:
    """Return whether any word means another structure than the left atrium.

    >>> [means_other_structure([word]) for word in ("LAwallMask", "wall2", "LAmask", "trans", "LGEmask")]
    [True, True, False, False, False]
    """
    return any(word.casefold() in OTHER_LABEL_WORDS or _JOINED_STRUCTURE.fullmatch(word) for word in words)


def may_be_other_structure(words: Collection[str]) -> bool:
    """Return whether words, in lower case, may mean another structure, such as the heart, and none means the atrium.

    >>> [may_be_other_structure(words) for words in ({"heart"}, {"left"}, {"heart", "atrium", "left"}, {"roi"})]
    [True, True, False, False]
    """
    return not _AMBIGUOUS_WORDS.isdisjoint(words) and (ATRIUM_WORDS - {"left"}).isdisjoint(words)


def without_outline_words(name: str) -> str:
    """Return a name without the words of `OUTLINE_WORDS`."""
    return without_words(name, OUTLINE_WORDS)


def describes_label(name: str, scan: str = "") -> bool:
    """Return whether each word of a name is a number, a word for labels or the atrium, or one of `QUALIFIERS`.

    Two other kinds of words are allowed after the first word:

    - a version such as `v2`;
    - a person's initials (two or three capitals), if the name has a word for the atrium.

    Neither is allowed if the scan's name has a version or initials: `mask_LA_JS` is no label of `AB_LGE`, since AB and
    JS may be two patients. `label_002` is no label of `LGE_001`, since 001 and 002 may be two patients.

    >>> names = ("Segmentation-Segment_1-label", "LA_label_final_v2", "mask_LA_JS", "mask_JS", "LA_RA_seg", "p2_LA_seg")
    >>> [describes_label(name) for name in names]
    [True, True, True, False, False, False]
    >>> [describes_label("mask_LA_JS", scan) for scan in ("4 LGE 3D", "AB_LGE")]
    [True, False]
    >>> [describes_label(label, "LGE_001") for label in ("label_001", "label_002", "Segmentation_2")]
    [True, False, True]
    >>> [describes_label(label, "3") for label in ("LA_seg_v2", "seg_3", "7_seg", "10_seg", "Segmentation_1")]
    [True, True, False, False, False]

    Args:
        scan: the name of the scan to which the label may belong.
    """
    words = [word for word in split_words(name)[::2] if word]
    known = LABEL_WORDS | ATRIUM_WORDS | QUALIFIERS | {""}
    others = [word for word in words if word.lower().strip("0123456789") not in known]
    has_initials = has_word(name, ATRIUM_WORDS - {"left"})
    fits = all(_VERSION.fullmatch(word) or (has_initials and _is_initials_in_capitals(word)) for word in others)
    numbers, of_scan = (re.findall(r"\d{2,}", text) for text in (name, scan))
    is_ambiguous = any(_VERSION.fullmatch(word) or _may_be_initials(word) for word in split_words(scan)[::2])
    has_number_of_other_patient = any(number not in of_scan and len(number) in map(len, of_scan) for number in numbers)
    if scan.isdecimal():
        has_number_of_other_patient |= any(word.isdecimal() and int(word) != int(scan) for word in words)
    return not has_number_of_other_patient and (not others or (fits and words[0] not in others and not is_ambiguous))


def _may_be_initials(word: str) -> bool:
    return bool(_INITIALS.fullmatch(word)) and word.lower() not in _NO_INITIALS


def _is_initials_in_capitals(word: str) -> bool:
    return len(word) > 1 and word.isupper() and _may_be_initials(word)


def rest_of(name: str, start: str) -> str | None:
    """Return the rest of a name after the words of `start`; None if the name does not begin with these words.

    >>> [rest_of(name, "p1") for name in ("P1_seg", "p1", "p10", "q")]
    ['_seg', '', None, None]
    """
    rest = name[len(start) :]
    return rest if name.casefold().startswith(start.casefold()) and SEPARATORS.match(rest or "_") else None


def begins_or_ends_with(name: str, words: str) -> bool:
    """Return whether a name begins or ends with the words of another name; capitals do not matter.

    >>> [begins_or_ends_with(name, "p1") for name in ("P1_v2", "reader1_p1", "p10", "a_p1_b")]
    [True, True, False, False]
    """
    return rest_of(name, words) is not None or rest_of(name[::-1], words[::-1]) is not None


def without_numbers_after_labels(name: str) -> str:
    """Return a name without the numbers after a word for labels; they count labels or versions, not patients.

    A name that begins with a word for labels is returned unchanged: in `label_001`, the number may be the patient's.

    >>> [without_numbers_after_labels(name) for name in ("p 1 Segmentation-Segment_1-label", "p1_seg_v2", "label_001")]
    ['p 1 Segmentation-Segment-label', 'p1_seg', 'label_001']
    """
    words = split_words(name)
    labels = [n for n in range(0, len(words), 2) if words[n].lower() in LABEL_WORDS | {"segment"}]
    if not labels or labels[0] == 0:
        return name
    kept = [n for n in range(0, len(words), 2) if n < labels[0] or not _NUMBER.fullmatch(words[n].lower())]
    return "".join("".join(words[max(0, n - 1) : n + 1]) for n in kept)


def modalities(parts: Iterable[str]) -> set[str]:
    """Return the words for the modality in the parts of a path, in lower case; words for the file format do not count.

    >>> sorted(modalities(("nifti", "p1_LGE_MR")))
    ['lge', 'mr']
    """
    return {word for part in parts for word in words_of(part)} & MODALITY_WORDS - FORMAT_WORDS


def is_folder_of_labels(name: str) -> bool:
    """Return whether a folder's name has a word for labels, and else only words for outlines, the modality or files.

    >>> names = ("Labels_LA", "2_label maps", "Ground Truth", "p2", "siteB_labels", "labels_2")
    >>> [is_folder_of_labels(name) for name in names]
    [True, True, True, False, False, False]
    """
    first, *others = re.findall(r"[^\W_]+", name.lower()) or [""]
    rest = {*others, *(() if first.isdecimal() else (first,))} - LABEL_WORDS
    return has_word(name, LABEL_WORDS) and rest <= OUTLINE_WORDS | MODALITY_WORDS | _FILE_WORDS


def is_folder_of_labels_of_a_part(name: str) -> bool:
    """Return whether a folder's name means the labels of a part of the data set: `labelsVal`."""
    return has_word(name, _PART_WORDS) and is_folder_of_labels(without_words(name, _PART_WORDS))


def is_folder_of_all_images(name: str) -> bool:
    """Return whether a folder's name has only words for images, and states no part of the data set: `images`."""
    return words_of(name) <= _WHOLE_IMAGE_WORDS
