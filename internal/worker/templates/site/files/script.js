// Mark where we are in the navigation.
const here = location.pathname.replace(/index\.html$/, "");
for (const link of document.querySelectorAll(".top nav a")) {
  const href = link.getAttribute("href");
  if (here === href) link.setAttribute("aria-current", "page");
  else if (here.startsWith(href)) link.setAttribute("aria-current", "true");
}

// On the home page, the project's prompt replaces our own introduction.
const lede = document.getElementById("lede");
if (lede) {
  try {
    const response = await fetch("/project.json");
    const prompt = response.ok ? (await response.json())?.prompt : "";
    const chars = Array.from(String(prompt ?? "").replace(/\s+/g, " ").trim());
    if (chars.length) lede.textContent = chars.length > 140 ? `${chars.slice(0, 139).join("").trimEnd()}…` : chars.join("");
  } catch {
    // No project.json: keep the words we have.
  }
}
