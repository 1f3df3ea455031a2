"use strict";
const save = document.getElementById("save");
save.href = document.getElementById("fused").src;  // the picture is in the page once
save.hidden = false;
for (const box of document.querySelectorAll(".before-after")) {
  const slider = box.querySelector("input[type=range]");
  const picture = box.querySelector(".compare");
  const over = box.querySelector(".over");
  const edge = box.querySelector(".edge");
  const unders = [...box.querySelectorAll(".under")];
  const name = box.querySelector(".source-name");
  const place = () => {
    over.style.clipPath = `inset(0 0 0 ${slider.value}%)`;
    edge.style.left = `${slider.value}%`;
    slider.setAttribute("aria-valuetext", `${slider.value} % source, ${100 - slider.value} % fused`);
  };
  const drag = (event) => {
    if (!event.buttons) return;
    const area = picture.getBoundingClientRect();
    slider.value = Math.round((100 * (event.clientX - area.left)) / area.width);
    place();
  };
  slider.addEventListener("input", place);
  picture.addEventListener("pointerdown", drag);
  picture.addEventListener("pointermove", drag);
  for (const choice of box.querySelectorAll("input[type=radio]")) {
    choice.addEventListener("change", () => {
      unders.forEach((image, n) => { image.hidden = n !== Number(choice.value); });
      name.textContent = unders[Number(choice.value)].dataset.name;
    });
  }
  place();
}
for (const box of document.querySelectorAll(".lapse")) {
  const slider = box.querySelector("input[type=range]");
  const moments = [...box.querySelectorAll(".moment")];
  const said = box.querySelector("output");
  const play = box.querySelector("button");
  let timer = 0;
  const show = () => {
    moments.forEach((moment, n) => { moment.hidden = n !== Number(slider.value); });
    said.textContent = moments[Number(slider.value)].dataset.name;
    slider.setAttribute("aria-valuetext", said.textContent);
  };
  const stop = () => { clearInterval(timer); timer = 0; play.textContent = "Play"; };
  const next = () => {
    if (Number(slider.value) >= moments.length - 1) { stop(); return; }
    slider.value = Number(slider.value) + 1;
    show();
  };
  slider.addEventListener("input", () => { stop(); show(); });
  play.addEventListener("click", () => {
    if (timer) { stop(); return; }
    if (Number(slider.value) >= moments.length - 1) { slider.value = 0; show(); }
    play.textContent = "Pause";
    timer = setInterval(next, moments.length < 10 ? 700 : 250);
  });
  show();
}
