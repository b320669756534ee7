"""The DICOM header of a sampled image: a new patient, who does not exist.

Every sample is a patient, a study and a series of its own. It is marked as synthetic in the image
type, the descriptions that viewers show, the patient's name, and DICOM's own attribute for this,
Synthetic Data (0008,001C).

Source: DICOM PS3.3, C.7.1 to C.7.5 (patient, study, series, equipment) and C.12.1 (SOP Common).
"""

from datetime import datetime
from importlib.metadata import version

from pydicom import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid


def synthetic_dataset(sop_class: UID, modality: str, *, title: str, remark: str = "") -> Dataset:
    """Return a data set of a new synthetic patient, study and series, without an image.

    Args:
        sop_class: The kind of image.
        modality: Its code, such as "CT".
        title: Description of the study and the series; must state that the image is synthetic.
        remark: A sentence that is added to the description of its derivation.
    """
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    now = datetime.now()
    date, time = now.strftime("%Y%m%d"), now.strftime("%H%M%S")
    dataset.SpecificCharacterSet = "ISO_IR 192"  # UTF-8
    dataset.SOPClassUID = sop_class
    for instance in ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
        setattr(dataset, instance, generate_uid())
    dataset.PatientName = "SYNTHETIC^DIFFCT"
    dataset.PatientID = f"SYNTHETIC-{dataset.StudyInstanceUID[-12:].replace('.', '')}"
    for unknown in ("PatientBirthDate", "PatientSex", "ReferringPhysicianName", "AccessionNumber"):
        setattr(dataset, unknown, "")
    dataset.StudyDate = dataset.ContentDate = dataset.InstanceCreationDate = date
    dataset.StudyTime = dataset.ContentTime = dataset.InstanceCreationTime = time
    dataset.Modality = modality
    dataset.StudyID, dataset.SeriesNumber, dataset.InstanceNumber = "1", 1, 1
    dataset.Manufacturer = dataset.ManufacturerModelName = "diffct"
    dataset.SoftwareVersions = version("diffct")
    dataset.SyntheticData = "YES"
    dataset.ContentQualification = "RESEARCH"
    dataset.ImageType = ["DERIVED", "PRIMARY"]
    dataset.StudyDescription = dataset.SeriesDescription = title
    dataset.ImageComments = f"{title}."
    derivation = (
        "Sampled from a generative diffusion model. No patient was examined; not for diagnosis."
    )
    dataset.DerivationDescription = f"{derivation} {remark}".strip()
    dataset.BurnedInAnnotation = "NO"
    dataset.LossyImageCompression = "00"
    return dataset
