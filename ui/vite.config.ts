import { fileURLToPath } from "node:url";
import vue from "@vitejs/plugin-vue";
import { defineConfig } from "vitest/config";
import vuetify from "vite-plugin-vuetify";

import { fixtures } from "./dev/server.ts";

// `vite --mode fixtures` answers /api itself, from made-up groups: to work on screens with no system running.
const SERVER = { "/api": "http://127.0.0.1:8080" };

export default defineConfig(({ mode }) => ({
  plugins: [vue(), vuetify({ autoImport: true }), ...(mode === "fixtures" ? [fixtures()] : [])],
  resolve: { alias: { "@": fileURLToPath(new URL("./src", import.meta.url)) } },
  build: {
    outDir: fileURLToPath(new URL("../pstp/web/static", import.meta.url)),
    emptyOutDir: true,
    modulePreload: { polyfill: false }, // the polyfill would be an inline script
    assetsInlineLimit: 0, // no data: addresses, the content policy allows none
  },
  worker: { format: "es" as const },
  ...(mode === "fixtures" ? {} : { server: { proxy: SERVER } }),
  test: { include: ["tests/**/*.test.ts"], testTimeout: 60_000 },
}));
