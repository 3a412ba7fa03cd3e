// Files that are dropped, pasted, chosen or photographed in, one picture file out.

/** Listen for pictures everywhere on the page; `onFile(file)` hears of each. */
export function listenForFiles({ inputs, zone }, onFile) {
  for (const input of inputs) {
    input.addEventListener('change', () => {
      if (input.files[0]) onFile(input.files[0]);
      input.value = ''; // so that the same file can be chosen again
    });
  }

  let depth = 0; // dragenter and dragleave come for every element below the pointer
  const hover = (change) => {
    depth = change === 0 ? 0 : depth + change;
    zone.classList.toggle('dropping', depth > 0);
  };
  const holdsFiles = (event) => [...event.dataTransfer.types].includes('Files');
  addEventListener('dragenter', (event) => holdsFiles(event) && hover(1));
  addEventListener('dragleave', (event) => holdsFiles(event) && hover(-1));
  addEventListener('dragover', (event) => holdsFiles(event) && event.preventDefault());
  addEventListener('drop', (event) => {
    if (!holdsFiles(event)) return;
    event.preventDefault();
    hover(0);
    if (event.dataTransfer.files[0]) onFile(event.dataTransfer.files[0]);
  });

  addEventListener('paste', (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    const file = files.find((one) => one.type.startsWith('image/')) ?? files[0];
    if (!file) return;
    event.preventDefault();
    onFile(file);
  });
}
