import { defineStore } from "pinia";
import { ref, watch } from "vue";

/** What this browser remembers: theme, density, single keys.  Everything else is in the address. */
export const useSession = defineStore("session", () => {
  const theme = ref(read("theme", "system"));
  const singleKeys = ref(read("single-keys", "on") === "on");
  watch(theme, (value) => localStorage.setItem("pstp.theme", value));
  watch(singleKeys, (value) => localStorage.setItem("pstp.single-keys", value ? "on" : "off"));
  return { theme, singleKeys };
});

function read(name: string, fallback: string): string {
  return localStorage.getItem(`pstp.${name}`) ?? fallback;
}
