// NumPy's .npy files, versions 1 to 3, of little-endian floats: the rows are read one at a time from the file, so a
// dump of many gigabytes opens at once. No pickled objects, no big-endian numbers, no Fortran order.

const KINDS = {
  "<f2": { size: 2, read: (view, at) => half(view.getUint16(at, true)) },
  "<f4": { size: 4, read: (view, at) => view.getFloat32(at, true) },
  "<f8": { size: 8, read: (view, at) => view.getFloat64(at, true) },
};

/** Opens a file (Blob): {count, dim, row: async (index) => Float32Array}. Errors say what to save instead. */
export async function openNpy(file) {
  const head = new DataView(await file.slice(0, 12).arrayBuffer());
  const magic = [0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59]; // \x93NUMPY
  if (head.byteLength < 12 || magic.some((byte, at) => head.getUint8(at) !== byte)) {
    throw new Error("This is not a .npy file: it does not begin as NumPy writes it. Save the array with np.save.");
  }
  const version = head.getUint8(6);
  if (version < 1 || version > 3) throw new Error(`This .npy file has version ${version}; versions 1 to 3 are read.`);
  const before = version === 1 ? 10 : 12;
  const length = version === 1 ? head.getUint16(8, true) : head.getUint32(8, true);
  const header = new TextDecoder().decode(await file.slice(before, before + Math.min(length, 65536)).arrayBuffer());
  const { kind, shape } = described(header);
  const [count, dim] = shape.length === 1 ? [1, shape[0]] : shape;
  const start = before + length;
  if (file.size < start + count * dim * kind.size) {
    throw new Error(`This .npy file is cut off: its header promises ${count} × ${dim} numbers, and fewer are there.`);
  }
  const row = async (index) => {
    const at = start + index * dim * kind.size;
    const view = new DataView(await file.slice(at, at + dim * kind.size).arrayBuffer());
    return Float32Array.from({ length: dim }, (_, column) => kind.read(view, column * kind.size));
  };
  return { count, dim, row };
}

function described(header) {
  const descr = /'descr'\s*:\s*'([^']*)'/.exec(header)?.[1];
  const fortran = /'fortran_order'\s*:\s*(True|False)/.exec(header)?.[1];
  const numbers = /'shape'\s*:\s*\(([\d,\sL]*)\)/.exec(header)?.[1];
  if (fortran === undefined || numbers === undefined) {
    throw new Error("The header of this .npy file cannot be read. Save the array anew with np.save.");
  }
  const kind = KINDS[descr];
  if (!kind) {
    const given = descr === undefined ? "records" : `type ${descr}`;
    throw new Error(`This .npy file holds ${given}; send floats: np.save(path, array.astype("<f4")).`);
  }
  const shape = numbers.split(",").map((part) => part.trim()).filter(Boolean).map((part) => parseInt(part, 10));
  if (shape.length < 1 || shape.length > 2) {
    throw new Error(`This array has ${shape.length} axes; send one vector [D] or several [N, D].`);
  }
  if (shape.some((size) => size < 1)) throw new Error("This array is empty.");
  if (fortran === "True" && shape.length === 2 && Math.min(...shape) > 1) {
    throw new Error("This array is in Fortran order; save np.ascontiguousarray(array).");
  }
  return { kind, shape };
}

/** IEEE 754 binary16; DataView.getFloat16 is too young to rely on. */
function half(bits) {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}
