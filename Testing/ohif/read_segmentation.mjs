// Read a DICOM segmentation with the package that OHIF uses, and print its labels on each source image as JSON:
//   npm install @cornerstonejs/adapters @cornerstonejs/core @babel/runtime dcmjs
//   node read_segmentation.mjs SEGMENTATION.dcm SOURCE.dcm ...
// `compare.py` runs this program and compares the labels with DCAMT's.
import fs from "fs";
import dcmjs from "dcmjs";
import { adaptersSEG } from "@cornerstonejs/adapters";
import { metaData } from "@cornerstonejs/core";

const { DicomMessage, DicomMetaDictionary } = dcmjs.data;

function bytesOf(file) {
  const { buffer, byteOffset, byteLength } = fs.readFileSync(file);
  return buffer.slice(byteOffset, byteOffset + byteLength);
}

const [segmentation, ...sources] = process.argv.slice(2);
const images = new Map();
for (const file of sources) {
  const image = DicomMetaDictionary.naturalizeDataset(DicomMessage.readFile(bytesOf(file)).dict);
  images.set(`image:${image.SOPInstanceUID}`, image);
}

// Answer queries about an image as OHIF's viewer does.
function get(type, id) {
  const image = images.get(id);
  if (!image) return undefined;
  if (type === "instance") return image;
  if (type === "generalSeriesModule") return { modality: image.Modality, seriesInstanceUID: image.SeriesInstanceUID };
  if (type === "sopCommonModule" || type === "generalImageModule")
    return { sopInstanceUID: image.SOPInstanceUID, sopClassUID: image.SOPClassUID };
  if (type === "imagePlaneModule")
    return {
      rows: image.Rows,
      columns: image.Columns,
      imageOrientationPatient: image.ImageOrientationPatient,
      rowCosines: image.ImageOrientationPatient.slice(0, 3),
      columnCosines: image.ImageOrientationPatient.slice(3),
      imagePositionPatient: image.ImagePositionPatient,
      pixelSpacing: image.PixelSpacing,
      frameOfReferenceUID: image.FrameOfReferenceUID,
    };
  return undefined;
}

metaData.addProvider(get, 10000);
const read = await adaptersSEG.Cornerstone3D.Segmentation.generateToolState(
  [...images.keys()],
  bytesOf(segmentation),
  { get },
);
const segments = read.segMetadata.data.filter(Boolean).map((one) => one.SegmentLabel);
const labels = Object.fromEntries(
  read.labelMapImages
    .flat()
    .map((one) => [one.referencedImageId.slice("image:".length), Array.from(one.voxelManager.getScalarData())]),
);
console.log(JSON.stringify({ segments, labels }));
