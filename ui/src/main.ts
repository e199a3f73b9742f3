import { createPinia } from "pinia";
import { createApp } from "vue";
import "vuetify/styles/core";
import { createVuetify } from "vuetify";
import { aliases, mdi } from "vuetify/iconsets/mdi-svg";

import App from "./App.vue";
import { router } from "./router";
import { connect } from "./state/live";
import "./styles/main.css";

const nonce = document.querySelector<HTMLMetaElement>('meta[property="csp-nonce"]')?.nonce ?? "";
const vuetify = createVuetify({
  icons: { defaultSet: "mdi", aliases, sets: { mdi } },
  theme: {
    cspNonce: nonce,
    defaultTheme: "system",
    themes: {
      light: { colors: { background: "#FFFFFF", surface: "#FFFFFF", primary: "#1B47C9" } },
      dark: { colors: { background: "#12161C", surface: "#12161C", primary: "#7AA9FF" } },
    },
  },
});

createApp(App).use(createPinia()).use(vuetify).use(router).mount("#app");
connect();
