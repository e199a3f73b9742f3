import { createRouter, createWebHistory } from "vue-router";

// Group and task ids go into the query, never into the path: any character may be in them, slashes and dots too.
export const router = createRouter({
  history: createWebHistory(),
  routes: [
    { path: "/", name: "overview", component: () => import("./screens/Overview.vue") },
    { path: "/groups", name: "groups", component: () => import("./screens/Groups.vue") },
    { path: "/group", name: "group", component: () => import("./screens/Group.vue"), props: (to) => ({ id: String(to.query.id ?? "") }) },
    { path: "/task", name: "task", component: () => import("./screens/Task.vue"), props: (to) => ({ id: String(to.query.id ?? "") }) },
    { path: "/dead-letters", name: "dead-letters", component: () => import("./screens/DeadLetters.vue") },
    { path: "/workers", name: "workers", component: () => import("./screens/Workers.vue") },
    { path: "/:rest(.*)*", redirect: { name: "overview" } },
  ],
});
