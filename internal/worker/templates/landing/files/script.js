// The moon's average tide: 12 h 25 min 14 s from one high water to the next.
const PERIOD = 745.233; // minutes
const EPOCH = Date.UTC(2024, 0, 11, 11, 57) / 60000; // a new moon, near enough
const $ = (id) => document.getElementById(id);

const phase = (lag, at = Date.now() / 60000) => ((((at - EPOCH - lag) / PERIOD) % 1) + 1) % 1;

const words = ["under an hour", "one hour", "two hours", "three hours", "four hours", "five hours", "six hours"];
function reading(p) {
  const ebbing = p < 0.5;
  const left = ((ebbing ? 0.5 : 1) - p) * PERIOD;
  if (left < 12 || left > PERIOD / 2 - 12) {
    const high = ebbing ? left > 60 : left < 60;
    return high ? "High water, standing still" : "Low water, standing still";
  }
  const n = left < 50 ? 0 : Math.round(left / 60);
  return `${ebbing ? "Ebbing" : "Flooding"}, ${n ? "about " : ""}${words[n]} to ${ebbing ? "low" : "high"} water`;
}

let turned = null;
function draw() {
  const p = phase(Number($("port").value));
  // Always take the short way round.
  let angle = p * 360;
  if (turned !== null) angle = turned + ((((angle - turned) % 360) + 540) % 360) - 180;
  turned = angle;
  $("hand").style.transform = `rotate(${angle}deg)`;
  $("now").textContent = reading(p);

  let d = "";
  for (let x = 0; x <= 1200; x += 12) {
    const t = p + (x / 1200) * (1500 / PERIOD);
    d += `${x ? "L" : "M"}${x} ${(118 - 74 * Math.cos(2 * Math.PI * t)).toFixed(1)}`;
  }
  $("line").setAttribute("d", d);
  $("fill").setAttribute("d", `${d}V260H0Z`);
}
$("port").addEventListener("change", draw);
draw();
setInterval(draw, 60000);

for (const input of document.querySelectorAll('input[name="finish"]')) {
  input.addEventListener("change", () => {
    for (const clock of document.querySelectorAll(".clock")) clock.dataset.finish = input.value;
  });
}

$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  $("said").textContent = "Thank you. This is a preview, so nothing was sent.";
  event.target.reset();
});

// The prompt is somebody's words, so it only ever becomes text.
function clip(value, max = 140) {
  const text = String(value ?? "").replace(/\s+/g, " ").trim();
  const chars = Array.from(text);
  return chars.length > max ? `${chars.slice(0, max - 1).join("").trimEnd()}…` : text;
}
try {
  const response = await fetch("/project.json");
  if (response.ok) {
    const text = clip((await response.json())?.prompt);
    if (text) $("lede").textContent = text;
  }
} catch {
  // No project.json: the page keeps its own words.
}
