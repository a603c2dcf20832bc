// ccomet.js for pages that use modules: import CComet from './ccomet.mjs';
import './ccomet.js';

export const CComet = globalThis.CComet;
export default CComet;
