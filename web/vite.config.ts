import { defineConfig } from "vite";

// `outrider serve` gives these files with a policy that allows nothing inline and nothing from elsewhere.
export default defineConfig({
  root: import.meta.dirname,
  build: { target: "es2022", assetsInlineLimit: 0, modulePreload: { polyfill: false } },
  server: { proxy: { "^/(v1|outrider|tokenize|detokenize)": "http://127.0.0.1:8080" } },
});
