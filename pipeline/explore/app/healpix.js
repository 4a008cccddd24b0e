// HEALPix, nested scheme (Gorski et al. 2005), for orders up to 24, whose pixel numbers are exact in double precision.

function interleave(x, y) {
  let pixel = 0;
  for (let bit = 1, place = 1; bit <= Math.max(x, y); bit *= 2, place *= 4) {
    if (Math.floor(x / bit) % 2) pixel += place;
    if (Math.floor(y / bit) % 2) pixel += 2 * place;
  }
  return pixel;
}

// Pixel of a position [deg].
export function pixelOf(order, ra, dec) {
  const side = 2 ** order, z = Math.sin(dec * Math.PI / 180), size = Math.abs(z);
  const quarter = ((ra % 360) + 360) % 360 / 90;
  let face, x, y;
  if (size <= 2 / 3) {
    const along = side * (0.5 + quarter), across = side * 0.75 * z;
    const p = Math.floor(along - across), m = Math.floor(along + across);
    const faceP = Math.floor(p / side), faceM = Math.floor(m / side);
    face = faceP === faceM ? (faceP % 4) + 4 : faceP < faceM ? faceP : faceM + 8;
    x = m - faceM * side;
    y = side - (p - faceP * side) - 1;
  } else {
    const at = Math.min(3, Math.floor(quarter)), part = quarter - at, scale = side * Math.sqrt(3 * (1 - size));
    const p = Math.min(Math.floor(part * scale), side - 1), m = Math.min(Math.floor((1 - part) * scale), side - 1);
    [face, x, y] = z >= 0 ? [at, side - m - 1, side - p - 1] : [at + 8, p, m];
  }
  return face * 4 ** order + interleave(x, y);
}

// Great-circle distance [arcsec].
export function distance(ra1, dec1, ra2, dec2) {
  const rad = Math.PI / 180;
  const a = Math.sin((dec2 - dec1) * rad / 2) ** 2
    + Math.cos(dec1 * rad) * Math.cos(dec2 * rad) * Math.sin((ra2 - ra1) * rad / 2) ** 2;
  return 2 * Math.asin(Math.min(1, Math.sqrt(a))) / rad * 3600;
}

// Pixels that a circle [deg, deg, arcsec] touches, at an order whose pixels are wider than the circle: few of them.
export function pixelsAround(ra, dec, radius) {
  const order = Math.max(0, Math.min(18, Math.floor(Math.log2(58.6 * 3600 / (2.5 * radius)))));
  const found = new Set([pixelOf(order, ra, dec)]);
  for (const part of [0.5, 1]) {
    for (let angle = 0; angle < 360; angle += 22.5) {
      const away = part * radius / 3600, up = away * Math.cos(angle * Math.PI / 180), side = away * Math.sin(angle * Math.PI / 180);
      const at = Math.max(-90, Math.min(90, dec + up));
      found.add(pixelOf(order, ra + side / Math.max(1e-6, Math.cos(at * Math.PI / 180)), at));
    }
  }
  return {order, pixels: [...found]};
}
